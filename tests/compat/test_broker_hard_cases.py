"""Hand-overs that are not smooth: open transactions, kills, cleaned logs, a directory that pylog made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

from .golden import check_indexes_mean_the_log
from .kafka import Broker, Row, dump_log, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("broker_tools")]
T0 = 1_790_000_000_000


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(
        tmp_path / "data",
        tmp_path / "work",
        {"log.cleaner.backoff.ms": 200, "log.initial.task.delay.ms": 100, "log.cleaner.min.cleanable.ratio": 0.01},
    )


def seen_by_pylog(log: pylog.Log, topic: str, *, committed: bool = False) -> list[Row]:
    records = log.read(topic, 0, isolation_level="read_committed" if committed else "read_uncommitted")
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, tuple(r.headers)) for r in records]


def values(rows: list[Row]) -> list[bytes | None]:
    return [row[4] for row in rows]


def send(producer: Any, topic: str, *sent: bytes) -> None:
    for value in sent:
        producer.produce(topic, value, b"k", 0)
    assert producer.flush(30) == 0


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_an_open_transaction_survives_a_visit_and_is_aborted_by_its_successor(broker: Broker, how: str) -> None:
    with broker:
        broker.create({"t": (1, {})})
        first = broker.producer(transactional_id="t", transaction_timeout_ms=600_000)
        first.init_transactions(30)
        first.begin_transaction()
        send(first, "t", b"committed")
        first.commit_transaction(30)
        first.begin_transaction()
        send(first, "t", b"left open")
        if how == "killed":
            broker.kill()
    with pylog.open(broker.data) as log:
        assert values(seen_by_pylog(log, "t")) == [b"committed", b"left open"]
        assert values(seen_by_pylog(log, "t", committed=True)) == [b"committed"]
        with log.producer() as producer:
            producer.send("t", b"pylog", key=b"k").get()
        assert values(seen_by_pylog(log, "t", committed=True)) == [b"committed"]  # it waits behind the open one
    with broker:
        second = broker.producer(transactional_id="t", transaction_timeout_ms=600_000)
        second.init_transactions(30)
        second.begin_transaction()
        send(second, "t", b"by the successor")
        second.commit_transaction(30)
        want = broker.read("t", committed=True)
        everything = broker.read("t")
    assert values(want) == [b"committed", b"pylog", b"by the successor"]
    assert values(everything) == [b"committed", b"left open", b"pylog", b"by the successor"]
    del first, second
    with pylog.open(broker.data) as log:
        assert seen_by_pylog(log, "t", committed=True) == want
        assert seen_by_pylog(log, "t") == everything


def test_a_killed_brokers_directory_goes_through_pylog_to_the_broker_again(broker: Broker) -> None:
    topics = {"a": (2, {}), "b": (1, {"segment_ms": 60_000, "index_interval_bytes": 64})}
    with broker:
        broker.create(topics)
        ids = broker.topic_ids()
        producer = broker.producer()
        for at in range(500):
            producer.produce("a", b"%d" % at, b"k", at % 2)
            producer.produce("b", b"%d" % at, b"k", 0, timestamp=T0 + at * 500)
            if at % 20 == 0:
                producer.flush(30)
        assert producer.flush(30) == 0
        broker.kill()
    del producer
    with pylog.open(broker.data) as log:
        assert values(seen_by_pylog(log, "b")) == [b"%d" % at for at in range(500)]
        with log.producer() as appender:
            for at in range(100):
                appender.send("a", b"pylog %d" % at, key=b"k", partition=at % 2)
                appender.send("b", b"pylog %d" % at, key=b"k", timestamp_ms=T0 + (500 + at) * 500)
        left = {topic: seen_by_pylog(log, topic) for topic in topics}
    for partition in ("a-0", "a-1", "b-0"):
        check_indexes_mean_the_log(broker.data / partition)
    with broker:
        assert broker.topic_ids() == ids
        assert {topic: broker.read(topic) for topic in topics} == left
        producer = broker.producer()
        send(producer, "b", b"on")
        assert values(broker.read("b"))[-2:] == [b"pylog 99", b"on"]
        assert " ERROR " not in broker.said()
    del producer


KEYS, VALUE_BYTES = 40, 2_000


def fill(producer: Any, tag: bytes) -> None:
    """1600 records, most of them soon overwritten, and tombstones."""
    for at in range(1600):
        value = None if at % 97 == 0 else tag + b" %d " % at + bytes(VALUE_BYTES)
        producer.produce("c", value, b"k%d" % (at * 7 % KEYS), 0, timestamp=T0 + at)
        if at % 50 == 0:
            producer.flush(30)
    assert producer.flush(30) == 0


def test_a_log_that_the_brokers_cleaner_went_through_is_read_and_goes_on_being_cleaned(broker: Broker) -> None:
    settings: Any = {"cleanup_policy": "compact", "segment_bytes": 1 << 20, "min_cleanable_dirty_ratio": 0.01}

    def cleaned_up_to() -> int:
        checkpoint = broker.data / "cleaner-offset-checkpoint"
        lines = checkpoint.read_text().splitlines()[2:] if checkpoint.exists() else []
        return next((int(line.split()[2]) for line in lines if line.split()[0] == "c"), 0)

    def wait_for_cleaner(end: int) -> None:
        wait_until(lambda: cleaned_up_to() > end - 600, f"the cleaner near offset {end}, it is at {cleaned_up_to()}")

    def offsets_by_the_dump_tool() -> list[int]:
        """Of a directory at rest: a read of the broker may be out of date once the cleaner runs again."""
        files = sorted(str(path.relative_to(broker.data)) for path in (broker.data / "c-0").glob("*.log"))
        shown, _ = dump_log(broker.data, files, "--print-data-log")
        return [int(line.split()[2]) for lines in shown.values() for line in lines if line.startswith("| offset: ")]

    with broker:
        broker.create({"c": (1, settings)})
        producer = broker.producer()
        fill(producer, b"first")
        wait_for_cleaner(1600)
        del producer
        read = broker.read("c")
    with pylog.open(broker.data) as log:
        want = seen_by_pylog(log, "c")
        assert [row[0] for row in want] == offsets_by_the_dump_tool()
        assert len(want) < 1600
        assert set(want) <= set(read)
        assert {row[3]: row for row in want} == {row[3]: row for row in read}
        tp = TopicPartition("c", 0)
        with log.consumer() as consumer:
            consumer.assign([tp])
            offsets = [row[0] for row in want]
            for at in range(0, 1600, 13):  # many of them lie in gaps
                consumer.seek(tp, at)
                polled = consumer.poll(max_records=1).get(tp, [])
                assert [r.offset for r in polled] == [offset for offset in offsets if offset >= at][:1]
        log.admin.alter_configs("c", **settings)
        with pytest.raises(ValueError, match="key"), log.producer() as refused:
            refused.send("c", b"no key")
        with log.producer() as appender:
            for at in range(1200):
                appender.send(
                    "c", b"pylog %d" % at + bytes(VALUE_BYTES), key=b"k%d" % (at % KEYS), timestamp_ms=T0 + 5000 + at
                )
        left = seen_by_pylog(log, "c")
    assert left[: len(want)] == want
    with broker:
        wait_for_cleaner(2800)
        read = broker.read("c")
        assert " ERROR " not in broker.said()
    with pylog.open(broker.data) as log:
        after = seen_by_pylog(log, "c")
    assert [row[0] for row in after] == offsets_by_the_dump_tool()
    assert set(after) <= set(read) <= set(left)
    assert len(after) < len(left)
    assert {row[3]: row for row in after} == {row[3]: row for row in left}


def test_a_directory_that_pylog_made_does_not_stop_a_broker_and_loses_nothing(broker: Broker) -> None:
    with pylog.open(broker.data) as log:
        log.admin.create_topic("mine", partitions=2, segment_bytes=1 << 20)
        with log.producer() as producer:
            for at in range(100):
                producer.send("mine", b"%d" % at, partition=at % 2)
    logs = {path.parent.name: path.read_bytes() for path in broker.data.glob("mine-*/*.log")}
    topics = (broker.data / "pylog.topics").read_text()
    with broker:  # formatted and started over what is there; a topic that it does not know it puts aside
        broker.create({"theirs": (1, {})})
        send(broker.producer(), "theirs", b"v")
        assert " ERROR " not in broker.said()
    assert (broker.data / "pylog.topics").read_text() == topics
    aside = {path.parent.name.split(".")[0]: path.read_bytes() for path in broker.data.glob("mine-*-stray/*.log")}
    assert aside == logs
    with pylog.open(broker.data, read_only=True) as log:
        assert values(seen_by_pylog(log, "theirs")) == [b"v"]
        assert "mine" not in log.admin.list_topics()


def test_a_topic_that_the_broker_deleted_does_not_come_back_by_a_visit(broker: Broker) -> None:
    with broker:
        broker.create({"gone": (1, {}), "stays": (1, {})})
    with pylog.open(broker.data) as log:
        for topic in ("gone", "stays"):
            log.admin.alter_configs(topic, segment_bytes=1 << 20)
    with broker:
        broker.delete("gone")
        wait_until(lambda: not (broker.data / "gone-0").exists(), "the topic's directory is renamed")
    with pylog.open(broker.data) as log:
        assert [topic for topic in log.admin.list_topics() if not topic.startswith("__")] == ["stays"]
        assert not (broker.data / "gone-0").exists()
    with broker:
        assert list(broker.topic_ids()) == ["stays"]
        assert "stray" not in broker.said()


def test_a_broker_takes_pylogs_whole_partitions_with_their_indexes(broker: Broker, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    settings: Any = {"index_interval_bytes": 512, "segment_bytes": 1 << 20}
    with pylog.open(mine) as log:
        log.admin.create_topic("o", **settings)
        with log.producer(compression_type="lz4") as producer:
            for at in range(20_000):
                producer.send("o", b"%d " % at * 30, key=b"k%d" % at, timestamp_ms=T0 + at)
        want = seen_by_pylog(log, "o")
    with broker:
        broker.create({"o": (1, settings)})
    for path in (broker.data / "o-0").glob("0*"):
        path.unlink()
    for path in (mine / "o-0").iterdir():
        if path.name != "partition.metadata":
            shutil.copy(path, broker.data / "o-0")
    for checkpoint in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        path = broker.data / checkpoint
        lines = path.read_text().splitlines()
        lines = [f"o 0 {len(want)}" if line.startswith("o 0 ") else line for line in lines]
        path.write_text("\n".join([*lines, ""]))
    assert json.loads((broker.data / ".kafka_cleanshutdown").read_text())["version"] == 0
    with broker:
        assert broker.read("o") == want
        assert broker.ends("o", 0) == (0, len(want))
        said = broker.said()
    assert "Skipping recovery of" in said
    assert " ERROR " not in said
    assert "corrupt" not in said.lower()


def test_neither_opens_what_the_other_has_open(broker: Broker) -> None:
    with broker:
        broker.create({"t": (1, {})})
        send(broker.producer(), "t", b"v")
        with pytest.raises(pylog.LogLockedError) as refused:
            pylog.open(broker.data)
        assert refused.value.pid == broker.pid
        with pylog.open(broker.data, read_only=True) as log:
            assert values(seen_by_pylog(log, "t")) == [b"v"]
        send(broker.producer(), "t", b"on")  # it has not noticed
    with pylog.open(broker.data) as log:
        with pytest.raises(RuntimeError, match="did not start"):
            broker.start()
        assert "lock" in broker.said().lower()
        assert values(seen_by_pylog(log, "t")) == [b"v", b"on"]
