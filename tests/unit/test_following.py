"""read_only handles beside writers: what is appended, rolled, deleted and made there is seen, and soon."""

import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition, _following, _native

ZERO = TopicPartition("orders", 0)

WRITER = """
import sys
import pylog
log = pylog.open(sys.argv[1], flush_ms=None, segment_bytes=int(sys.argv[2]))
producer = log.producer()
print("ready", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
log.close()
"""


class Writer:
    """Another process that has the directory open for writing, and evaluates what it is told."""

    def __init__(self, directory: Path, segment_bytes: int = 1 << 20) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(segment_bytes)],
            env={**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def __call__(self, expression: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self._answer()

    def send(self, *values: bytes, topic: str = "orders") -> None:
        self(f"[producer.send({topic!r}, value).get().offset for value in {values!r}]")

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        if self.process.stdin and not self.process.stdin.closed:
            self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    """Start a Writer of tmp_path/"data"."""
    writers: list[Writer] = []

    def make(**options: Any) -> Writer:
        writers.append(Writer(tmp_path / "data", **options))
        return writers[-1]

    yield make
    for writer in writers:
        writer.kill()


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Callable[[], pylog.Log]]:
    """Open tmp_path/"data" read_only."""
    logs: list[pylog.Log] = []

    def make() -> pylog.Log:
        logs.append(pylog.open(tmp_path / "data", read_only=True))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


@pytest.fixture(params=["shared", "only readable", "by files"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a reader hears of writers: their bell; their shared state without the bell; the files alone."""
    if request.param == "only readable":
        follow = _native.Shared.follow

        def without_bell(directory: str) -> _native.Shared:
            shared = follow(directory)
            shared.writable = False  # root may write to any file; what another user meets is tested below
            return shared

        monkeypatch.setattr(_native.Shared, "follow", without_bell)
    elif request.param == "by files":
        monkeypatch.setattr(_following.Following, "_has_members", lambda self: False)
    return str(request.param)


def values(records: Any) -> list[bytes]:
    return [record.value for record in records]


def polled(consumer: pylog.Consumer, count: int, seconds: float = 10) -> list[bytes]:
    """The next `count` values, in as many polls as it takes."""
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=1000).values():
            found += values(records)
    return found


def numbered(start: int, stop: int, size: int = 1) -> list[bytes]:
    return [b"%d" % i + b"." * size for i in range(start, stop)]


# -- what writers do


def test_records_are_seen_as_they_are_appended(how: str, start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"before")
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"before"]
    for i in range(50):
        writer.send(b"%d" % i)
        assert polled(consumer, 1) == [b"%d" % i]
    assert consumer.poll() == {}


def test_a_waiting_poll_returns_soon_after_the_append(how: str, start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"first")
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"first"]
    seconds = []
    for _ in range(15):
        writer(
            "__import__('threading').Timer(0.05, lambda: globals().update(at=__import__('time').monotonic(), "
            "sent=producer.send('orders', b'x').get())).start()"
        )
        assert polled(consumer, 1) == [b"x"]
        seconds.append(time.monotonic() - float(writer("at")))
    median = sorted(seconds)[len(seconds) // 2]
    assert median < (0.01 if how == "shared" else 0.03)


def test_rolls_are_followed_and_nothing_is_missed_or_told_twice(how: str, start: Any, reading: Any) -> None:
    writer = start(segment_bytes=4096)
    writer.send(*numbered(0, 10, 200))
    log = reading()
    consumer = log.consumer("orders")
    found = polled(consumer, 10)
    for i in range(10, 200, 10):
        writer.send(*numbered(i, i + 10, 200))
        found += polled(consumer, 10)
    assert found == numbered(0, 200, 200)
    assert log.admin.describe_topics(["orders"])[0]["partitions"][0]["segments"] > 5
    assert values(log.read("orders")) == numbered(0, 200, 200)


def test_deleted_records_are_gone_for_the_reader_too(how: str, start: Any, reading: Any) -> None:
    writer = start(segment_bytes=4096)
    writer.send(*numbered(0, 100, 200))
    log = reading()
    consumer = log.consumer("orders")
    assert polled(consumer, 100) == numbered(0, 100, 200)
    writer("log.admin.delete_records({('orders', 0): 60})")
    writer.send(b"new")
    assert polled(consumer, 1) == [b"new"]
    first = next(iter(log.read("orders"))).offset
    # The files say only which segments are gone; the offset within one is in the shared state, and in a checkpoint.
    assert first == 60
    with pytest.raises(pylog.OffsetOutOfRangeError):
        next(iter(log.read("orders", 0, start=0)))


def test_new_topics_partitions_and_deletions_are_seen(how: str, start: Any, reading: Any) -> None:
    writer = start()
    log = reading()
    consumer = log.consumer()
    consumer.subscribe(pattern=".*")
    writer.send(b"1")
    assert polled(consumer, 1) == [b"1"]
    writer.send(b"2", topic="more")
    assert polled(consumer, 1) == [b"2"]
    writer("log.admin.create_partitions({'more': 3})")
    writer("producer.send('more', b'3', partition=2).get()")
    assert polled(consumer, 1) == [b"3"]
    writer("log.admin.delete_topics(['orders'])")
    writer.send(b"4", topic="more")
    polled(consumer, 1)
    assert log.admin.list_topics() == ["more"]
    writer.send(b"again")
    assert polled(consumer, 1) == [b"again"]


def test_truncated_records_are_not_told_and_those_in_their_place_are(start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"0", b"1", b"2")
    log = reading()
    consumer = log.consumer("orders")
    assert polled(consumer, 3) == [b"0", b"1", b"2"]
    writer("log.topic('orders').partition(0).native.truncate(1)")
    assert consumer.end_offsets([ZERO]) == {ZERO: 1}
    writer.send(b"other")
    assert values(log.read("orders")) == [b"0", b"other"]


# -- writers come and go


@pytest.mark.parametrize("end", ["close", "kill"])
def test_the_next_writer_is_followed_after_the_last_has_gone(how: str, end: str, start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"0")
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"0"]
    for i in range(1, 4):
        getattr(writer, end)()
        assert consumer.poll(timeout_ms=60) == {}
        writer = start()
        writer.send(b"%d" % i)
        assert polled(consumer, 1) == [b"%d" % i]


def test_a_reader_that_came_first_follows_the_first_writer(tmp_path: Path, start: Any, reading: Any) -> None:
    with pylog.open(tmp_path / "data") as log:
        log.producer().send("orders", b"0").get()
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"0"]
    writer = start()
    assert consumer.poll(timeout_ms=60) == {}
    writer.send(b"1")
    assert polled(consumer, 1) == [b"1"]


def test_a_place_in_a_log_that_was_recovered_meanwhile_is_found_anew(
    how: str, start: Any, tmp_path: Path, reading: Any
) -> None:
    """Recovery has cut a record that the reader had read, and others of other lengths have taken its offset."""
    writer = start()
    writer.send(b"0", b"1")
    consumer = reading().consumer("orders")
    assert polled(consumer, 2) == [b"0", b"1"]
    writer.kill()
    file = tmp_path / "data" / "orders-0" / f"{0:020d}.log"
    os.truncate(file, file.stat().st_size - 1 if b"\0" * 61 not in file.read_bytes() else 100)
    writer = start()
    writer.send(b"longer than it was", b"2")
    assert polled(consumer, 1) == [b"2"]


HAMMER = """
import sys
import pylog
log = pylog.open(sys.argv[1], flush_ms=None, segment_bytes=65536)
producer = log.producer(linger_ms=0)
print("ready", flush=True)
while True:
    producer.send("orders", b"%d-%d" % (int(sys.argv[2]), producer.send("orders", b"x" * 300).get().offset)).get()
"""


def test_what_a_reader_was_told_stays_so_whoever_dies(tmp_path: Path, reading: Any) -> None:
    """Writers killed at any moment, also all at once; PYLOG_FOLLOW_SECONDS says for how long."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])}
    data = tmp_path / "data"
    pylog.open(data).close()

    def begin(number: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HAMMER, str(data), str(number)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    consumer = reading().consumer("orders")
    told: list[tuple[int, bytes]] = []
    deadline = time.monotonic() + float(os.environ.get("PYLOG_FOLLOW_SECONDS", "4"))
    number = kills = 0
    writers: list[subprocess.Popen[str]] = []
    while time.monotonic() < deadline:
        while len(writers) < 2:
            number += 1
            writers.append(begin(number))
        until = time.monotonic() + random.uniform(0.02, 0.3)
        while time.monotonic() < until:
            for records in consumer.poll(timeout_ms=20).values():
                told += [(record.offset, record.value) for record in records]
        for writer in writers if random.random() < 0.4 else writers[:1]:
            writer.kill()
            writer.communicate()
            kills += 1
        writers = [writer for writer in writers if writer.returncode is None]
    for writer in writers:
        writer.kill()
        writer.communicate()
    with pylog.open(data) as log:
        there = [(record.offset, record.value) for record in log.read("orders")]
    while len(told) < len(there) and (polls := consumer.poll(timeout_ms=1000)):
        told += [(record.offset, record.value) for records in polls.values() for record in records]
    print(f"{kills} kills, {len(there)} records, {len(told)} told")
    assert told == there


def test_shared_state_that_nobody_keeps_is_not_believed(tmp_path: Path, start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"0", b"1")
    writer.kill()
    assert reading()._following.shared is None
    # Bytes that the dead one's tail says nothing of, as a power cut may leave it: the files are what counts.
    with pylog.open(tmp_path / "data") as log:
        log.producer().send("orders", b"2").get()
    assert values(reading().read("orders")) == [b"0", b"1", b"2"]


def test_what_a_writer_has_not_published_is_not_read(tmp_path: Path, start: Any, reading: Any) -> None:
    """A whole batch with a right CRC behind the published end, as one that dies before it publishes leaves it."""
    writer = start()
    writer.send(b"0")
    file = tmp_path / "data" / "orders-0" / f"{0:020d}.log"
    one = file.read_bytes()
    batch = (1).to_bytes(8, "big") + one[8 : 12 + int.from_bytes(one[8:12], "big")]
    with file.open("r+b") as raw:
        raw.seek(len(batch))
        raw.write(batch)
    log = reading()
    assert log._following.shared is not None
    assert values(log.read("orders")) == [b"0"]
    writer.send(b"1")
    assert values(log.read("orders")) == [b"0", b"1"]


@pytest.mark.parametrize("tail", ["half a batch", "a flipped bit", "zeros"])
def test_by_files_only_whole_batches_are_believed(tail: str, tmp_path: Path, reading: Any) -> None:
    with pylog.open(tmp_path / "data") as log:
        log.producer().send("orders", b"0").get()
    file = tmp_path / "data" / "orders-0" / f"{0:020d}.log"
    batch = (1).to_bytes(8, "big") + file.read_bytes()[8:]
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"0"]
    flipped = bytes([*batch[:-1], batch[-1] ^ 1])
    not_yet = {"half a batch": batch[:-1], "a flipped bit": flipped, "zeros": bytes(4096)}[tail]
    with file.open("r+b") as raw:
        raw.seek(len(batch))
        raw.write(not_yet)
        raw.flush()
        assert consumer.poll(timeout_ms=100) == {}
        raw.seek(len(batch))
        raw.write(batch)
        raw.flush()
        assert polled(consumer, 1) == [b"0"]
    assert consumer.position(ZERO) == 2


def test_by_files_a_file_that_was_cut_is_read_anew(tmp_path: Path, reading: Any) -> None:
    with pylog.open(tmp_path / "data") as log:
        for i in range(3):
            log.producer().send("orders", b"%d" % i).get()
    consumer = reading().consumer("orders")
    assert polled(consumer, 3) == [b"0", b"1", b"2"]
    file = tmp_path / "data" / "orders-0" / f"{0:020d}.log"
    os.truncate(file, file.stat().st_size // 3)
    (tmp_path / "data" / ".kafka_cleanshutdown").unlink()
    (tmp_path / "data" / "recovery-point-offset-checkpoint").unlink()
    time.sleep(0.02)
    assert consumer.end_offsets([ZERO]) == {ZERO: 1}


def test_by_files_a_view_that_leaves_some_out_is_not_made_again_and_again(tmp_path: Path, reading: Any) -> None:
    """Damage in an unflushed segment: recovery, in memory, leaves out those behind it."""
    with pylog.open(tmp_path / "data", segment_bytes=4096) as log:
        for value in numbered(0, 60, 200):
            log.producer().send("orders", value).get()
    (tmp_path / "data" / ".kafka_cleanshutdown").unlink()
    (tmp_path / "data" / "recovery-point-offset-checkpoint").unlink()
    second = sorted((tmp_path / "data" / "orders-0").glob("*.log"))[1]
    with second.open("r+b") as file:
        file.write(b"damage in the header")
    log = reading()
    consumer = log.consumer("orders")
    found = polled(consumer, 60, seconds=1)
    assert 5 < len(found) < 30
    before = log.generation
    consumer.poll(timeout_ms=300)
    assert log.generation - before <= 1


# -- what a reader leaves alone


def files_of(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if stat.S_ISREG(path.stat().st_mode):
            found[str(path)] = path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()
    return found


def test_a_reader_changes_no_file_where_nobody_writes(tmp_path: Path, reading: Any) -> None:
    with pylog.open(tmp_path / "data") as log:
        log.producer().send("orders", b"0").get()
    before = files_of(tmp_path / "data")
    log = reading()
    consumer = log.consumer("orders")
    assert polled(consumer, 1) == [b"0"]
    consumer.poll(timeout_ms=200)
    log.close()
    assert files_of(tmp_path / "data") == before


def test_a_reader_holds_no_lock_and_is_no_member(start: Any, tmp_path: Path, reading: Any) -> None:
    writer = start()
    writer.send(b"0")
    consumer = reading().consumer("orders")
    assert polled(consumer, 1) == [b"0"]
    writer.close()
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()  # it was the last one out
    with (tmp_path / "data" / ".lock").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as a broker does


def test_a_writer_that_was_stopped_does_not_stop_the_reader(start: Any, reading: Any) -> None:
    writer = start()
    writer.send(b"0", b"1")
    consumer = reading().consumer("orders")
    os.kill(writer.process.pid, signal.SIGSTOP)
    try:
        assert polled(consumer, 2) == [b"0", b"1"]
        began = time.monotonic()
        assert consumer.poll(timeout_ms=100) == {}
        assert time.monotonic() - began < 1
    finally:
        os.kill(writer.process.pid, signal.SIGCONT)


def test_a_user_who_may_only_read_follows(start: Any, tmp_path: Path) -> None:
    """Another user: root could write to any file."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    writer = start()
    writer.send(b"0")
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    ancestors = [(path, path.stat().st_mode) for path in tmp_path.parents if not path.stat().st_mode & 0o001]
    reader, pipe = os.pipe()
    for path, mode in ancestors:
        path.chmod(mode | 0o011)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            with pylog.open(tmp_path / "data", read_only=True) as log:
                assert log._following is not None
                assert log._following.shared is not None
                assert not log._following.shared.writable
                consumer = log.consumer("orders")
                assert polled(consumer, 1) == [b"0"]
                os.write(pipe, b"x")
                assert polled(consumer, 1) == [b"1"]
                status = 0
        finally:
            os._exit(status)
    try:
        os.read(reader, 1)
        writer.send(b"1")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(reader)
        os.close(pipe)
        for path, mode in ancestors:
            path.chmod(mode)
