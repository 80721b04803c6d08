"""Topics and their records: making, changing, describing, deleting."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)


def values(log: pylog.Log, topic: str = "orders") -> list[bytes]:
    return [record.value for record in log.read(topic)]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_topic_is_made_with_its_partitions_and_is_empty(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=3, segment_bytes=5000)
    assert log.admin.list_topics() == ["orders"]
    (described,) = log.admin.describe_topics(["orders"])
    assert described["name"] == "orders"
    assert described["config"]["segment_bytes"] == 5000
    assert described["partitions"][2] == {
        "partition": 2,
        "start_offset": 0,
        "end_offset": 0,
        "last_stable_offset": 0,
        "flushed_offset": 0,
        "segments": 1,
        "size_bytes": 0,
    }


def test_a_topic_that_is_there_is_not_made_again(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=2)
    with pytest.raises(pylog.TopicAlreadyExistsError, match="'orders'"):
        log.admin.create_topic("orders")
    log.admin.create_topic("orders", partitions=5, exist_ok=True)
    assert len(log.admin.describe_topics()[0]["partitions"]) == 2


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", 10_001, None])
def test_a_number_of_partitions_that_makes_no_sense_is_refused(count: Any, log: pylog.Log) -> None:
    log.admin.create_topic("there")
    for call in (
        lambda: log.admin.create_topic("orders", partitions=count),
        lambda: log.admin.create_partitions({"there": count}),
    ):
        with pytest.raises(pylog.InvalidConfigurationError, match="partitions"):
            call()
    assert log.admin.list_topics() == ["there"]


def test_partitions_can_only_be_added_and_those_there_keep_their_records(log: pylog.Log) -> None:
    log.producer().send("orders", b"1").get()
    log.admin.create_partitions({"orders": 3})
    for count in (1, 2, 3):
        with pytest.raises(pylog.InvalidConfigurationError, match="can only get more"):
            log.admin.create_partitions({"orders": count})
    assert log.producer().send("orders", b"2", partition=2).get().offset == 0
    log.close()
    with pylog.open(log.url) as again:
        assert [(r.partition, r.value) for r in again.read("orders")] == [(0, b"1"), (2, b"2")]


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.delete_topics(["nothing"]),
        lambda admin: admin.create_partitions({"nothing": 2}),
        lambda admin: admin.describe_topics(["nothing"]),
        lambda admin: admin.alter_configs("nothing", segment_ms=5),
        lambda admin: admin.delete_records({TopicPartition("nothing", 0): 0}),
        lambda admin: admin.delete_records({TopicPartition("orders", 1): 0}),
    ],
)
def test_what_is_not_there_is_named(call: Callable[[pylog.Admin], object], log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match=r"no topic 'nothing'|partition 1, topic orders"):
        call(log.admin)


def test_deleted_topics_are_gone_from_the_disk_and_can_be_made_anew(log: pylog.Log, tmp_path: Path) -> None:
    log.admin.create_topic("orders", partitions=2)
    log.producer().send_many("orders", [b"1", b"2"]).get()
    log.producer().send("kept", b"3").get()
    log.admin.delete_topics(["orders"])
    assert log.admin.list_topics() == ["kept"]
    assert not list((tmp_path / "data").glob("orders*"))
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        log.read("orders")
    log.producer().send("orders", b"new").get()
    log.close()
    with pylog.open(log.url) as again:
        assert (values(again), values(again, "kept")) == ([b"new"], [b"3"])


def test_deleting_one_of_many_that_is_not_there_deletes_none(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match="'nothing'"):
        log.admin.delete_topics(["orders", "nothing"])
    with pytest.raises(TypeError, match="not a str"):
        log.admin.delete_topics("orders")
    assert log.admin.list_topics() == ["orders"]


def test_columns_of_a_deleted_topic_stay_readable(log: pylog.Log) -> None:
    log.producer().send_many("orders", [b"%d" % i for i in range(1000)]).get()
    (columns,) = log.scan("orders")
    view = columns.value[999]
    log.admin.delete_topics(["orders"])
    log.close()
    assert columns.value.tolist() == [b"%d" % i for i in range(1000)]
    assert view == b"999"


def test_altered_settings_hold_from_the_next_append_on_and_stay(log: pylog.Log, tmp_path: Path) -> None:
    producer = log.producer(batch_size=200)
    producer.send_many("orders", [bytes(100)] * 20).get()
    log.admin.alter_configs("orders", segment_bytes=1000)
    producer.send_many("orders", [bytes(100)] * 20).get()
    segments = len(list((tmp_path / "data" / "orders-0").glob("*.log")))
    assert segments > 3
    log.admin.alter_configs("orders", segment_ms=77)
    log.close()
    with pylog.open(log.url) as again:
        config = again.admin.describe_topics()[0]["config"]
        assert (config["segment_bytes"], config["segment_ms"]) == (1000, 77)
        assert len(values(again)) == 40


def test_a_setting_that_makes_no_sense_changes_none(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with pytest.raises(pylog.InvalidConfigurationError, match="segment_ms"):
        log.admin.alter_configs("orders", segment_bytes=5000, segment_ms=0)
    with pytest.raises(TypeError, match="unknown topic option 'colour'"):
        log.admin.alter_configs("orders", colour="red")  # type: ignore[call-arg]
    assert log.admin.describe_topics()[0]["config"]["segment_bytes"] == 1 << 30


# -- deleting records


def test_deleted_records_are_gone_for_every_reader_and_stay_gone(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=2) as log:
        for partition in (0, 1):
            log.producer().send_many("orders", [b"%d" % i for i in range(10)], partition=partition).get()
        log.admin.delete_records({ZERO: 7})
        assert [r.offset for r in log.read("orders", 0)] == [7, 8, 9]
        assert sum(len(columns) for columns in log.scan("orders", 0)) == 3
        log.admin.delete_records({ZERO: 3})  # below the start already: nothing to do
        assert log.consumer().beginning_offsets([ZERO, ONE]) == {ZERO: 7, ONE: 0}
    with pylog.open(tmp_path) as log:
        assert [r.offset for r in log.read("orders", 0)] == [7, 8, 9]
        assert len(list(log.read("orders", 1))) == 10
        log.admin.delete_records({ZERO: -1, ONE: 4})
        assert log.consumer().beginning_offsets([ZERO, ONE]) == {ZERO: 10, ONE: 4}
        assert log.producer().send("orders", b"next", partition=0).get().offset == 10


def test_whole_segments_give_their_space_back(tmp_path: Path) -> None:
    with pylog.open(tmp_path, segment_bytes=1000) as log:
        log.producer(batch_size=200).send_many("orders", [bytes(100)] * 100).get()
        before = len(list((tmp_path / "orders-0").glob("*.log")))
        log.admin.delete_records({ZERO: 90})
        after = [int(path.stem) for path in sorted((tmp_path / "orders-0").glob("*.log"))]
        assert len(after) < before / 4
        assert after[0] <= 90
        assert {int(path.stem) for path in (tmp_path / "orders-0").glob("*.*index")} == set(after)
        assert [r.offset for r in log.read("orders")] == list(range(90, 100))


@pytest.mark.parametrize("offset", [-2, 11, 2**62])
def test_deleting_beyond_the_end_is_refused_and_deletes_nothing(offset: int, log: pylog.Log) -> None:
    log.producer().send_many("orders", [b"x"] * 10).get()
    with pytest.raises(pylog.OffsetOutOfRangeError, match=f"orders-0: offset {offset} is out of range 0 to 10"):
        log.admin.delete_records({ZERO: offset})
    assert len(values(log)) == 10


def test_a_process_that_dies_after_deleting_has_deleted(run_script: Any, tmp_path: Path) -> None:
    done = run_script(
        """
        import os
        import pylog
        log = pylog.open("data", segment_bytes=1000)
        log.producer(batch_size=200).send_many("orders", [bytes(100)] * 100).get()
        log.admin.delete_records({pylog.TopicPartition("orders", 0): 55})
        os._exit(0)
        """
    )
    assert done.returncode == 0
    with pylog.open(tmp_path / "data") as log:
        assert [r.offset for r in log.read("orders")] == list(range(55, 100))


# -- what a broker expects to find


def test_a_partition_has_the_files_that_a_broker_keeps(log: pylog.Log, tmp_path: Path) -> None:
    log.producer().send("orders", b"x").get()
    base = "0" * 20
    expected = [f"{base}.index", f"{base}.log", f"{base}.timeindex", "leader-epoch-checkpoint", "partition.metadata"]
    directory = tmp_path / "data" / "orders-0"
    assert set(expected) <= set(files(directory))
    assert (directory / "leader-epoch-checkpoint").read_text() == "0\n1\n0 0\n"
    version, topic_id = (directory / "partition.metadata").read_text().split("\n")
    assert version == "version: 0"
    assert len(topic_id.removeprefix("topic_id: ")) == 22


def test_the_partitions_of_a_topic_have_one_id_and_topics_different_ones(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=2) as log:
        log.admin.create_topic("a", partitions=2)
        log.admin.create_topic("b", partitions=2)
        log.admin.create_partitions({"a": 3})
    ids = {name: (tmp_path / name / "partition.metadata").read_text() for name in ("a-0", "a-1", "a-2", "b-0", "b-1")}
    assert ids["a-0"] == ids["a-1"] == ids["a-2"] != ids["b-0"] == ids["b-1"]


def test_the_settings_are_in_one_plain_file(log: pylog.Log, tmp_path: Path) -> None:
    log.admin.create_topic("orders", partitions=2, segment_bytes=5000)
    content = json.loads((tmp_path / "data" / "pylog.topics").read_text())
    assert content["version"] == 1
    assert content["topics"]["orders"]["partitions"] == 2
    assert content["topics"]["orders"]["config"] == {"segment_bytes": 5000}
    assert not list((tmp_path / "data").glob("*.tmp"))
    assert (tmp_path / "data" / "pylog.topics").stat().st_mode & 0o022 == 0


@pytest.fixture
def looking(log: pylog.Log) -> Iterator[None]:
    """Somebody asks for the topics all the time."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            log.admin.list_topics()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(look)
        yield
        over.set()
        done.result()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "change",
    [
        "admin.create_topic('made', partitions=2)",
        "admin.create_partitions({'here': 3})",
        "admin.delete_topics(['here'])",
        "admin.alter_configs('here', retention_ms=1000)",
    ],
)
@pytest.mark.usefixtures("looking")
def test_a_process_that_dies_before_or_after_it_tells_of_a_change_has_made_it(
    change: str, moment: str, log: pylog.Log, run_script: Any, tmp_path: Path
) -> None:
    log.admin.create_topic("here")
    before = log.admin.describe_topics()
    died = run_script(
        f"""
        import os, signal, time, pylog
        from pylog._native import Shared

        def begin(shared):
            topics_changing(shared)
            Shared.topics_changed = die
            time.sleep(0.2)  # the others look, and find nothing new

        def die(shared):
            if {moment == "after"}:
                topics_changed(shared)
            os.kill(os.getpid(), signal.SIGKILL)

        topics_changing, topics_changed = Shared.topics_changing, Shared.topics_changed
        Shared.topics_changing = begin
        pylog.open("data").{change}
        """
    )
    assert (died.returncode, died.stderr) == (-signal.SIGKILL, "")
    deadline = time.monotonic() + 10
    while (seen := log.admin.describe_topics()) == before:  # for as long as the other thread is at it
        assert time.monotonic() < deadline
    with pylog.open(tmp_path / "data", read_only=True) as anew:
        assert seen == anew.admin.describe_topics()
    log.admin.create_topic("next")  # and nothing stands in the way
    assert "next" in log.admin.list_topics()
