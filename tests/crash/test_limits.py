"""File descriptors, memory, signals: what a process runs out of, or is interrupted by, is told and loses nothing."""

import errno
import gc
import gzip
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import pylog

ROOT = Path(pylog.__file__).parents[1]  # where children find the pylog that is tested


def run_script(source: str, *arguments: object) -> str:
    """Run Python source in a new interpreter; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one: fsync costs nothing there."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pylog-limits-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


# -- file descriptors


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Sets how many descriptors may be had beside those that are open; None: as many as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int | None) -> None:
        if more is None:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            return
        used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        free = (fd for fd in range(1 << 20) if fd not in used)
        limit = next(fd for count, fd in enumerate(free) if count == more)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))

    yield allow  # type: ignore[misc]
    allow(None)


def check_used_up(error: BaseException) -> None:
    assert isinstance(error, pylog.StorageError), repr(error)
    assert error.errno == errno.EMFILE, repr(error)
    assert "Too many open files" in str(error)
    assert error.filename


class Model:
    """What was sent to partition 0, and what of it was acknowledged, and where."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged: dict[int, bytes] = {}

    def append(self, log: pylog.Log) -> None:
        value = b"%d" % self.sent + b"." * 80
        self.sent += 1
        self.acknowledged[log.producer(acks="all").send("orders", value, partition=0).get().offset] = value

    def check(self, log: pylog.Log) -> None:
        """What was acknowledged is where it was put; the rest is there whole, or not at all."""
        read = [record.value for record in log.read("orders", 0)]
        assert {offset: read[offset] for offset in self.acknowledged} == self.acknowledged
        numbers = [int(value.rstrip(b".")) for value in read]
        assert numbers == sorted(set(numbers))
        assert all(len(value.lstrip(b"0123456789")) == 80 for value in read)


def do_everything(log: pylog.Log, model: Model) -> list[BaseException]:
    """Appends that roll, flushes, reads, administration; what went wrong.  Each step may, and the next is done."""

    def append() -> None:
        model.append(log)

    def read() -> None:
        model.check(log)

    steps: list[Callable[[], object]] = [
        *(append, append, append, read, log.flush),
        lambda: log.admin.create_topic("more", exist_ok=True),
        lambda: log.producer().send("more", b"x").get(),
        lambda: log.admin.delete_topics(["more"]),
        *(append, lambda: log.producer().send("orders", b"x", partition=1).get(), read, append),
    ]
    wrong: list[BaseException] = []
    for step in steps:
        try:
            step()
        except pylog.UnknownTopicOrPartitionError:
            assert wrong  # it could not be made before
        except pylog.PylogError as error:
            wrong.append(error)
    return wrong


@pytest.fixture
def told_aside(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What the background thread could not write down."""
    seen: list[BaseException] = []

    def hook(args: Any) -> None:
        seen.append(args.exc_value)
        raise OSError(errno.EMFILE, "a hook that fails itself")

    monkeypatch.setattr(threading, "excepthook", hook)
    return seen


@pytest.mark.parametrize("opened_before", [True, False])
def test_descriptors_that_are_used_up_are_told_and_lose_nothing(
    opened_before: bool, tmp_path: Path, few_descriptors: Any, told_aside: list[BaseException]
) -> None:
    model = Model()
    counted = 0
    with pylog.open(tmp_path, segment_bytes=400, index_interval_bytes=100, flush_ms=None) as log:
        log.admin.create_topic("orders", 2)
        assert do_everything(log, model) == []
        for left in range(25):
            wrong: list[BaseException] = []
            few_descriptors(left)
            try:
                if opened_before:
                    wrong += do_everything(log, model)
                else:
                    with pylog.open(tmp_path) as other:
                        wrong += do_everything(other, model)
            except pylog.PylogError as error:
                wrong.append(error)
            finally:
                few_descriptors(None)
            for error in wrong + told_aside:
                check_used_up(error)
            counted += len(wrong)
            told_aside.clear()
            assert do_everything(log, model) == []  # the same handle goes on
    assert counted  # how often depends on what the garbage collector had closed by then
    for read_only in (True, False):
        with pylog.open(tmp_path, read_only=read_only) as log:
            model.check(log)


def test_an_open_that_finds_no_descriptors_leaves_none_and_the_directory_sound(
    tmp_path: Path, few_descriptors: Any
) -> None:
    with pylog.open(tmp_path) as log:
        log.producer().send("orders", b"1").get()
    opened = 0
    for clean in (True, False):
        for left in range(20):
            if not clean:
                (tmp_path / ".kafka_cleanshutdown").unlink(missing_ok=True)
            gc.collect()
            descriptors = len([*Path("/proc/self/fd").iterdir()])
            few_descriptors(left)
            try:
                log = pylog.open(tmp_path)
            except pylog.PylogError as error:
                few_descriptors(None)
                check_used_up(error)
            else:
                few_descriptors(None)
                opened += 1
                log.close()
                del log
            gc.collect()
            assert len([*Path("/proc/self/fd").iterdir()]) <= descriptors
    assert 2 < opened < 38
    with pylog.open(tmp_path) as log:
        assert [record.value for record in log.read("orders")] == [b"1"]


MANY = """
import errno, resource, sys, pylog
PARTITIONS = 500
with pylog.open(sys.argv[1], flush_ms=None) as log:
    log.admin.create_topic("orders", PARTITIONS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
    producer, done, refused = log.producer(), 0, 0
    for partition in range(PARTITIONS):
        try:
            producer.send("orders", b"%d" % partition, partition=partition).get()
            done += 1
        except pylog.StorageError as error:
            assert error.errno == errno.EMFILE and error.filename, error
            refused += 1
    assert done > 30 and refused > 30, (done, refused)
    assert sum(1 for partition in range(done) for _ in log.read("orders", partition)) == done
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    for partition in range(done, PARTITIONS):
        producer.send("orders", b"%d" % partition, partition=partition).get()
with pylog.open(sys.argv[1]) as log:
    assert [r.value for r in log.read("orders")] == [b"%d" % partition for partition in range(PARTITIONS)]
print(done, "of", PARTITIONS, "partitions with 256 descriptors")
"""


def test_more_partitions_than_descriptors_are_told_and_work_when_there_are_more(memory_path: Path) -> None:
    print(run_script(MANY, memory_path))


# -- memory

MEMORY = """
import resource, sys, pylog
path, wanted = sys.argv[1], int(sys.argv[2])
acknowledged = []
def check(log):
    assert [record.value for record in log.read("orders")] == acknowledged
with pylog.open(path, segment_bytes=1 << 20, flush_ms=None) as log:
    producer = log.producer()
    for number in range(20):
        value = bytes([number]) * 1000
        producer.send("orders", value).get()
        acknowledged.append(value)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    failures = 0
    # From what leaves hardly a page up to what is enough: each is refused somewhere else.
    for left in range(0, 6 << 20, wanted):
        resource.setrlimit(resource.RLIMIT_AS, (used + left, -1))
        for step in range(4):
            try:
                value = bytes([step]) * 300_000
                if step == 0:
                    producer.send("orders", value).get()
                elif step == 1:
                    sum(len(r.value) for r in log.read("orders"))
                    continue
                elif step == 2:
                    log.admin.create_topic("t%d" % left)
                    continue
                else:
                    log.producer(compression_type="gzip").send("orders", value).get()
                acknowledged.append(value)
            except (MemoryError, pylog.StorageError) as error:
                assert isinstance(error, MemoryError) or error.errno == 12, repr(error)
                failures += 1
            except OSError as error:
                assert error.errno == 12, repr(error)
                failures += 1
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        ends = log.consumer().end_offsets([pylog.TopicPartition("orders", 0)])
        assert sum(ends.values()) == len(acknowledged), (ends, len(acknowledged))
        check(log)
    assert failures > 5, failures
with pylog.open(path) as log:
    check(log)
print(failures, "refusals,", len(acknowledged), "records")
"""


def test_memory_that_is_used_up_is_told_and_the_log_is_sound(tmp_path: Path) -> None:
    print(run_script(MEMORY, tmp_path, 150_000))


HOSTILE = """
import os, resource, sys, pylog
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), -1))
for name in sorted(os.listdir(sys.argv[1])):
    said = []
    for read_only in (True, False):
        try:
            with pylog.open(os.path.join(sys.argv[1], name), read_only=read_only) as log:
                said.append(f"{len(list(log.read('orders')))} records")
        except pylog.PylogError as error:
            said.append(type(error).__name__)
    print(name, said)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(peak, "MB at most")
assert peak < 600, peak
"""


def hostile_batches() -> dict[str, Callable[[bytearray], None]]:
    """Changes of a gzip batch's bytes; the CRC is made to fit again."""

    def put(layout: str, at: int, value: int) -> Callable[[bytearray], None]:
        return lambda batch: struct.pack_into(layout, batch, at, value)

    changes: dict[str, Callable[[bytearray], None]] = {}
    for value in (-1, 0, 13, 1 << 20, 2**31 - 1, -(2**31)):
        changes[f"batch length {value}"] = put(">i", 8, value)
        changes[f"record count {value}"] = put(">i", 57, value)
        changes[f"last offset delta {value}"] = put(">i", 23, value)
    return changes


def change_batch(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the first batch's bytes, and make its sum fit again."""
    file = path / "orders-0" / ("0" * 20 + ".log")
    batch = bytearray(file.read_bytes())
    change(batch)
    struct.pack_into(">I", batch, 17, pylog._native.crc32c(bytes(batch[21:])))  # type: ignore[attr-defined]
    file.write_bytes(batch)


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_what_a_hostile_header_claims_takes_no_memory(codec: Literal["gzip"] | None, tmp_path: Path) -> None:
    for name, change in hostile_batches().items():
        with pylog.open(tmp_path / name) as log:
            log.producer(compression_type=codec).send_many("orders", [b"x" * 100] * 50).get()
        change_batch(tmp_path / name, change)
    said = run_script(HOSTILE, tmp_path)
    print(said)
    assert said.count("CorruptRecordError") >= 20


def test_a_bomb_in_a_batch_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def arm(batch: bytearray) -> None:
        batch[61:] = gzip.compress(bytes(1 << 30), 1)
        struct.pack_into(">i", batch, 8, len(batch) - 12)

    with pylog.open(tmp_path / "bomb", max_message_bytes=1 << 24) as log:
        log.producer(compression_type="gzip").send_many("orders", [b"x" * 100] * 50).get()
    change_batch(tmp_path / "bomb", arm)
    said = run_script(HOSTILE, tmp_path)
    print(said)
    assert "bomb ['CorruptRecordError', 'CorruptRecordError']" in said


# -- signals


def test_signals_that_interrupt_system_calls_fail_no_append(tmp_path: Path, memory_path: Path) -> None:
    source = """
import shutil, signal, sys, tempfile, time, pylog
rung = 0
def ring(*_):
    global rung
    rung += 1
signal.signal(signal.SIGALRM, ring)
signal.siginterrupt(signal.SIGALRM, True)
path = tempfile.mkdtemp(dir=sys.argv[1])
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
values = []
for _ in range(3):
    with pylog.open(path, segment_bytes=3000) as log:
        until = time.monotonic() + 0.7
        producer = log.producer(acks="all")
        while time.monotonic() < until:
            values.append(b"%d" % len(values))
            producer.send("orders", values[-1]).get()
        assert [record.value for record in log.read("orders")] == values
signal.setitimer(signal.ITIMER_REAL, 0)
shutil.rmtree(path)
assert rung > 200, rung
print(len(values), "appends under", rung, "signals")
"""
    for path in (tmp_path, memory_path):
        print(run_script(source, path))


INTERRUPTED = """
import sys, pylog
for turn in range(3) if sys.argv[1:] else ():
    with pylog.open(sys.argv[1], segment_bytes=200, index_interval_bytes=0) as log:
        for number in range(10):
            log.producer(acks="all").send("orders", b"x" * 50).get()
        assert len(list(log.read("orders"))) == 10 * (turn + 1)
"""


def traced(call: str, trace: Path, *arguments: object, first: int | None = None) -> int:
    """Run the script; how often it makes the call, or, where each third from the first on is interrupted, that was."""
    command = ["strace", "-f", "-qq", "-o", trace, "-e", f"trace={call}", "-e", "signal=none"]
    inject = [] if first is None else ["-e", f"inject={call}:error=EINTR:when={first}+3"]
    done = subprocess.run(
        [*command, *inject, sys.executable, "-c", INTERRUPTED, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return trace.read_text().count("INJECTED" if inject else f"{call}(")


@pytest.mark.parametrize("call", ["ftruncate", "fdatasync", "fsync", "pwrite64", "pread64", "fallocate"])
def test_a_call_that_is_interrupted_is_made_again(call: str, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # What the interpreter does before is left alone: the loader takes EINTR for an error.
    before = traced(call, tmp_path / "trace")
    assert traced(call, tmp_path / "trace", tmp_path / "data", first=before + 2) > 0
