"""A data directory: its lock, its topics' names, its small files, what a crash may leave of them."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition
from pylog._directory import Directory

BAD_NAMES = ["", ".", "..", "a/b", "../x", "/etc", "a b", "a\n", "a\0b", "ü", "x" * 250, "a:b", "a\\b"]
GOOD_NAMES = ["a", "A.b_c-9", "...", "-", "x" * 249, "a-0", "a-0-1", "orders.stray", "x.deadbeef-delete"]


@pytest.fixture
def locked_by_a_broker(tmp_path: Path) -> Iterator[int]:
    """A process that holds a POSIX lock on .lock, as a broker does; its pid."""
    source = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True);"
        " sys.stdin.read()"
    )
    broker = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert broker.stdin is not None
    assert broker.stdout is not None
    assert broker.stdout.readline() == b"locked\n"
    yield broker.pid
    broker.stdin.close()
    broker.stdout.close()
    broker.wait()


# -- names


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_wherever_a_topic_is_named(name: str, log: pylog.Log, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    calls: list[Callable[[], object]] = [
        lambda: log.producer().send(name, b"x"),
        lambda: log.producer().send_many(name, [b"x"]),
        lambda: log.read(name),
        lambda: log.scan(name),
        lambda: log.admin.create_topic(name),
        lambda: log.admin.delete_topics([name]),
        lambda: log.consumer(name),
        lambda: log.consumer().assign([TopicPartition(name, 0)]),
    ]
    for call in calls:
        with pytest.raises(pylog.InvalidTopicError, match="is no topic name"):
            call()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [5, None, b"orders", ("a",)])
def test_a_name_of_another_type_is_a_type_error(name: Any, log: pylog.Log) -> None:
    calls: list[Callable[[], object]] = [
        lambda: log.producer().send(name, b"x"),
        lambda: log.read(name),
        lambda: log.admin.create_topic(name),
        lambda: log.consumer(name),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="name is a str"):
            call()


def test_all_legal_names_live_side_by_side_and_are_found_again(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=2) as log, log.producer() as producer:
        for name in GOOD_NAMES:
            producer.send(name, name.encode(), partition=1)
    with pylog.open(tmp_path) as log:
        assert log.admin.list_topics() == sorted(GOOD_NAMES)
        for name in GOOD_NAMES:
            assert [(r.partition, r.value) for r in log.read(name)] == [(1, name.encode())]
        log.admin.delete_topics(GOOD_NAMES[1:])
        assert log.admin.list_topics() == ["a"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["a-0", "a-1"] or sorted(
        path.name for path in tmp_path.iterdir() if path.is_dir()
    ) == ["a-0", "a-1"]


# -- the lock


def test_a_second_open_of_the_directory_sees_and_appends_what_the_first_does(log: pylog.Log) -> None:
    log.producer().send("orders", b"1").get()
    with pylog.open(log.url) as other:
        assert other.producer().send("orders", b"2").get().offset == 1
        assert [record.value for record in log.read("orders")] == [b"1", b"2"]
    log.producer().send("orders", b"3").get()
    assert [record.value for record in log.read("orders")] == [b"1", b"2", b"3"]


def test_only_the_last_to_close_leaves_the_clean_mark(log: pylog.Log) -> None:
    mark = Path(log.url) / ".kafka_cleanshutdown"
    other = pylog.open(log.url)
    log.close()
    assert not mark.exists()
    other.close()
    assert mark.exists()


def test_another_process_joins_while_it_is_open(log: pylog.Log, run_script: Any) -> None:
    log.producer().send("orders", b"1").get()
    source = f"import pylog\nlog = pylog.open({log.url!r})\nprint(log.producer().send('orders', b'2').get().offset)"
    joined = run_script(source)
    assert (joined.returncode, joined.stdout.strip()) == (0, "1"), joined.stderr
    assert [record.value for record in log.read("orders")] == [b"1", b"2"]


@pytest.mark.parametrize(("at", "message"), [(0, "not pylog's shared state"), (8, "layout"), (24, "PID namespace")])
def test_who_does_not_fit_those_who_have_it_open_is_refused_with_the_reason(
    at: int, message: str, log: pylog.Log
) -> None:
    log.producer().send("orders", b"1").get()
    with open(Path(log.url) / "pylog.shm", "r+b", buffering=0) as shared:
        shared.seek(at)
        before = shared.read(1)
        shared.seek(at)
        shared.write(bytes([before[0] ^ 0x55]))
        with pytest.raises(pylog.InvalidConfigurationError, match=message):
            pylog.open(log.url)
        shared.seek(at)
        shared.write(before)
    with pylog.open(log.url) as other:
        assert [record.value for record in other.read("orders")] == [b"1"]


def test_an_old_shared_state_is_not_believed_by_who_opens_alone(log: pylog.Log) -> None:
    log.producer().send("orders", b"1").get()
    path = Path(log.url) / "pylog.shm"
    log.close()
    path.write_bytes(b"\xff" * len(path.read_bytes()))
    with pylog.open(log.url) as again:
        assert again.producer().send("orders", b"2").get().offset == 1


def test_a_broker_s_lock_is_respected_and_its_process_named(locked_by_a_broker: int, tmp_path: Path) -> None:
    with pytest.raises(pylog.LogLockedError, match=f"process {locked_by_a_broker}") as raised:
        pylog.open(tmp_path)
    assert raised.value.pid == locked_by_a_broker
    assert raised.value.retriable


def test_a_broker_cannot_lock_what_is_open(log: pylog.Log, tmp_path: Path) -> None:
    with open(tmp_path / "data" / ".lock", "r+") as file:
        wanted = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = struct.unpack("@hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, wanted)[:32])
    assert found[0] != fcntl.F_UNLCK  # what would keep a POSIX lock out


def test_a_failed_open_leaves_the_directory_unlocked(tmp_path: Path) -> None:
    (tmp_path / "pylog.topics").write_text("not json")
    for _ in range(2):
        with pytest.raises(pylog.CorruptRecordError, match=r"pylog\.topics"):
            pylog.open(tmp_path)
    (tmp_path / "pylog.topics").unlink()
    pylog.open(tmp_path).close()


def test_a_file_in_the_directory_s_place_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    with pytest.raises(pylog.StorageError) as raised:
        pylog.open(path)
    assert raised.value.filename == str(path)


def test_a_link_in_the_lock_s_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "data" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(pylog.StorageError, match=r"\.lock"):
        pylog.open(tmp_path / "data")
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_link_in_a_partition_s_place_is_no_partition(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orders-0").symlink_to(tmp_path / "elsewhere")
    with pylog.open(tmp_path / "data") as log:
        assert log.admin.list_topics() == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- read_only


def test_read_only_of_a_missing_directory_is_an_error_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(pylog.StorageError, match="no such directory"):
        pylog.open(tmp_path / "data", read_only=True)
    assert not (tmp_path / "data").exists()


def test_read_only_changes_no_file_and_refuses_every_change(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log:
        log.producer().send("orders", b"1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pylog.open(tmp_path, read_only=True) as log:
        calls: list[Callable[[], object]] = [
            log.producer,
            lambda: log.admin.create_topic("more"),
            lambda: log.admin.delete_topics(["orders"]),
            lambda: log.admin.create_partitions({"orders": 2}),
            lambda: log.admin.alter_configs("orders", segment_ms=5),
            lambda: log.admin.delete_records({TopicPartition("orders", 0): 1}),
        ]
        for call in calls:
            with pytest.raises(pylog.IllegalStateError, match="read_only"):
                call()
        assert [record.value for record in log.read("orders")] == [b"1"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_read_only_goes_beside_a_writer(log: pylog.Log) -> None:
    log.producer().send("orders", b"1").get()
    with pylog.open(log.url, read_only=True) as reader:
        assert [record.value for record in reader.read("orders")] == [b"1"]


# -- small files


def test_the_clean_mark_is_there_exactly_while_nobody_writes(tmp_path: Path) -> None:
    mark = tmp_path / ".kafka_cleanshutdown"
    with pylog.open(tmp_path) as log:
        assert not mark.exists()
        log.producer().send("orders", b"1")
    assert json.loads(mark.read_text())["version"] == 0
    with pylog.open(tmp_path, read_only=True):
        assert mark.exists()


def test_a_clean_close_notes_the_ends_as_recovery_points(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=2) as log:
        log.producer().send_many("orders", [b"x"] * 5, partition=1)
    assert (tmp_path / "recovery-point-offset-checkpoint").read_text() == "0\n1\norders 1 5\n" or (
        tmp_path / "recovery-point-offset-checkpoint"
    ).read_text() == "0\n2\norders 0 0\norders 1 5\n"


@pytest.mark.parametrize("name", ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"])
@pytest.mark.parametrize("text", ["1\n0\n", "0\n1\norders zero 5\n", "\xff", "0\n1\norders 0\n"])
def test_a_checkpoint_that_makes_no_sense_is_reported_by_name(name: str, text: str, tmp_path: Path) -> None:
    pylog.open(tmp_path).close()
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(pylog.CorruptRecordError, match=name):
        pylog.open(tmp_path)


def test_a_creation_that_was_interrupted_is_finished_by_the_next_open(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log:
        log.admin.create_topic("orders", partitions=3)
    for part in ("orders-1", "orders-2"):
        for file in (tmp_path / part).iterdir():
            file.unlink()
        (tmp_path / part).rmdir()
    with pylog.open(tmp_path) as log:
        log.producer().send("orders", b"x", partition=2).get()
        assert len(log.admin.describe_topics(["orders"])[0]["partitions"]) == 3


def test_who_opens_while_a_topic_is_made_sees_all_of_its_partitions_or_none(tmp_path: Path) -> None:
    names = [f"topic{number}" for number in range(3)]
    with pylog.open(tmp_path) as log:
        making = threading.Thread(target=lambda: [log.admin.create_topic(name, partitions=8) for name in names])
        making.start()
        looks = 0
        while making.is_alive():
            with pylog.open(tmp_path) as other:
                listed = other.admin.describe_topics(other.admin.list_topics())
                assert {len(topic["partitions"]) for topic in listed} <= {8}
                looks += len(listed) < len(names)
        making.join()
        assert log.admin.list_topics() == names
    assert looks > 0


def test_a_topic_that_is_begun_between_two_looks_at_the_directory_is_not_seen_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, look = Directory.make_partition, Directory.partitions
    looked, begun, seen = threading.Event(), threading.Event(), threading.Event()
    maker: list[int] = []

    def made(self: Directory, tp: TopicPartition, topic_id: str) -> None:
        make(self, tp, topic_id)
        begun.set()
        seen.wait(60)

    def partitions(self: Directory) -> dict[str, list[int]]:
        if threading.get_ident() not in maker and not looked.is_set():
            looked.set()
            begun.wait(60)
        return look(self)

    def work() -> None:
        maker.append(threading.get_ident())
        looked.wait(60)
        log.admin.create_topic("orders", partitions=3)

    with pylog.open(tmp_path) as log:
        monkeypatch.setattr(Directory, "make_partition", made)
        monkeypatch.setattr(Directory, "partitions", partitions)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(work)
            with pylog.open(tmp_path) as other:
                assert other.admin.list_topics() == []
                seen.set()
                done.result()
                assert other.admin.list_topics() == ["orders"]
                assert len(other.admin.describe_topics()[0]["partitions"]) == 3


@pytest.mark.parametrize(
    ("call", "partitions"),
    [("create_topic('orders', partitions=4)", 0), ("create_partitions({'early': 4})", 1)],
    ids=["topic", "partitions"],
)
def test_what_a_killed_process_was_making_is_made_anew_by_who_wants_it(
    call: str, partitions: int, run_script: Any, tmp_path: Path
) -> None:
    with pylog.open(tmp_path / "data") as log:
        log.admin.create_topic("early")
        done = run_script(
            f"""
            import os
            import pylog
            from pylog._directory import Directory

            make = Directory.make_partition
            Directory.make_partition = lambda self, tp, id: os._exit(7) if tp.partition == 2 else make(self, tp, id)
            pylog.open("data").admin.{call}
            """
        )
        assert done.returncode == 7
        topic = "early" if partitions else "orders"
        assert (tmp_path / "data" / f"{topic}-1").is_dir()
        with pylog.open(tmp_path / "data", read_only=True) as reader:
            for seeing in (log, reader):
                assert seeing.admin.list_topics() == ["early"]
                assert len(seeing.topic("early").partitions) == 1
        if partitions:
            log.admin.create_partitions({topic: 4})
        else:
            log.admin.create_topic(topic, partitions=4)
        log.producer().send(topic, b"x", partition=3).get()
        texts = {path.read_text() for path in (tmp_path / "data").glob(f"{topic}-*/partition.metadata")}
        assert len(texts) == 1
    with pylog.open(tmp_path / "data") as log:
        assert len(log.topic(topic).partitions) == 4


def test_a_deletion_that_was_interrupted_is_finished_by_the_next_open(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=2) as log:
        log.producer().send_many("orders", [b"1", b"2"])
        log.producer().send("kept", b"3")
    entries = json.loads((tmp_path / "pylog.topics").read_text())
    entries["topics"]["orders"]["deleted"] = True
    (tmp_path / "pylog.topics").write_text(json.dumps(entries))
    (tmp_path / "orders-1").rename(tmp_path / ("orders-1." + "0" * 32 + "-delete"))
    with pylog.open(tmp_path) as log:
        assert log.admin.list_topics() == ["kept"]
        assert [record.value for record in log.read("kept")] == [b"3"]
    assert not list(tmp_path.glob("orders*"))


def test_files_of_others_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "notes-x").mkdir()
    (tmp_path / "orders-01").mkdir()
    with pylog.open(tmp_path) as log:
        assert log.admin.list_topics() == []
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "notes-x").is_dir()
    assert (tmp_path / "orders-01").is_dir()


def test_processes_that_replace_a_file_at_the_same_moment_do_not_meet(tmp_path: Path) -> None:
    source = (
        "import sys; from pathlib import Path; from pylog._directory import replace_file\n"
        "for _ in range(200): replace_file(Path(sys.argv[1]), sys.argv[2] * 1000)"
    )
    target = tmp_path / "checkpoint"
    others = [subprocess.Popen([sys.executable, "-c", source, str(target), letter]) for letter in "abc"]
    while any(other.poll() is None for other in others):
        if target.exists():
            assert target.read_text() in {letter * 1000 for letter in "abc"}
    assert [other.wait() for other in others] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_an_interrupted_replacement_has_left_is_removed_by_who_opens_alone(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log:
        log.admin.create_topic("orders")
        log.producer().send("orders", b"x").get()
    left = [tmp_path / "pylog.topics.17.18.tmp", tmp_path / "orders-0" / "leader-epoch-checkpoint.17.18.tmp"]
    for path in left:
        path.write_text("half")
    with pylog.open(tmp_path) as log:
        assert [record.value for record in log.read("orders")] == [b"x"]
    assert not any(path.exists() for path in left)
