"""python cut_child.py NAME DIRECTORY [guarded|unguarded]: reads a log in one way while a segment is cut under it.

Each function below is a way; it checks what it gets and returns.  A process that touches what is gone must live to do
so; unguarded, the engine's handler is taken away first, and it must die.
"""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pylog
from pylog import TopicPartition
from pylog._dump.batches import LogBytes
from pylog._dump.output import BrokenFileError

ZERO = TopicPartition("orders", 0)
T0 = 1_700_000_000_000
RECORDS = 3000
CUT = 30_000  # inside the second segment
guarded = True


def value(i: int) -> bytes:
    return b"%06d" % i * 10


class Scene:
    """A log of several segments, open, read once, and then cut in its second segment."""

    def __init__(self, path: Path) -> None:
        self.log = pylog.open(path, segment_bytes=100_000)
        with self.log.producer(batch_size=2000) as producer:
            for i in range(RECORDS):
                producer.send("orders", value(i), timestamp_ms=T0 + i)
        assert [r.value for r in self.log.read("orders")] == [value(i) for i in range(RECORDS)]
        self.files = sorted((path / "orders-0").glob("*.log"))
        assert len(self.files) >= 3
        self.bases = [int(file.stem) for file in self.files]
        self.victim = self.files[1]
        self.whole = self.victim.read_bytes()

    def cut(self, size: int = CUT) -> None:
        if not guarded:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
        os.truncate(self.victim, size)

    def restore(self) -> None:
        with self.victim.open("r+b") as file:
            file.write(self.whole)

    @contextmanager
    def loss(self) -> Iterator[None]:
        """What is inside must raise, and name the file and the place."""
        try:
            yield
        except pylog.CorruptRecordError as error:
            assert self.victim.name in str(error), error
            assert error.position is not None
            assert error.position <= CUT, error
        else:
            raise AssertionError("the loss went unseen")


def check_read(got: list[bytes], first: int = 0) -> int:
    assert got == [value(i) for i in range(first, first + len(got))]
    return first + len(got)


def iterate(scene: Scene) -> None:
    consumer = scene.log.consumer("orders", auto_offset_reset="earliest", consumer_timeout_ms=0)
    scene.cut()
    got: list[bytes] = []
    for _ in range(2):  # and again: it stays an error as long as it is one
        with scene.loss():
            for record in consumer:
                got.append(record.value)
    at = check_read(got)
    assert scene.bases[1] < at < scene.bases[2], "what lies before the cut is read"
    consumer.seek(ZERO, scene.bases[2])
    assert check_read([record.value for record in consumer], scene.bases[2]) == RECORDS
    scene.restore()
    consumer.seek(ZERO, at)
    assert check_read([record.value for record in consumer], at) == RECORDS


def poll(scene: Scene) -> None:
    for check_crcs in (True, False):
        consumer = scene.log.consumer("orders", auto_offset_reset="earliest", check_crcs=check_crcs)
        scene.cut(-(-CUT // 4096) * 4096)  # without CRCs, zeros in a page that is still there are no loss
        got: list[bytes] = []
        try:
            while polled := consumer.poll():
                got += [record.value for record in polled[ZERO]]
            raise AssertionError("the loss went unseen")
        except pylog.CorruptRecordError:
            pass
        assert scene.bases[1] < check_read(got) < scene.bases[2]
        scene.restore()
        while polled := consumer.poll():
            got += [record.value for record in polled[ZERO]]
        assert check_read(got) == RECORDS


def read(scene: Scene) -> None:
    scene.cut(0)
    got: list[bytes] = []
    with scene.loss():
        for record in scene.log.read("orders"):
            got.append(record.value)
    assert check_read(got) == scene.bases[1]
    assert check_read([r.value for r in scene.log.read("orders", 0, scene.bases[2])], scene.bases[2]) == RECORDS


def scan(scene: Scene) -> None:
    columns = iter(scene.log.scan("orders", start=scene.bases[1], partition=0))
    handed_out = next(columns)
    before = handed_out.value.data.copy()
    scene.cut()
    after = handed_out.value.data.copy()
    assert (after[:CUT] == before[:CUT]).all()
    assert before[CUT:].any()
    assert not after[CUT:].any(), "what is gone reads as zeros"
    with scene.loss():
        next(columns)
    scene.restore()
    got = [v for c in scene.log.scan("orders") for v in c.value.tolist()]
    assert check_read([v or b"" for v in got]) == RECORDS


def find_time(scene: Scene) -> None:
    scene.cut(0)
    with scene.log.consumer() as consumer:
        lost = T0 + scene.bases[1] + 1
        with scene.loss():
            consumer.offsets_for_times({ZERO: lost})
        for offset in (5, scene.bases[2] + 5):
            found = consumer.offsets_for_times({ZERO: T0 + offset})[ZERO]
            assert found is not None
            assert found.offset == offset
        scene.restore()
        found = consumer.offsets_for_times({ZERO: lost})[ZERO]
        assert found is not None
        assert found.offset == lost - T0


def dump(scene: Scene) -> None:
    with LogBytes(str(scene.victim)) as log:
        seen = 0
        scene.cut()
        try:
            for position, *_ in log.spans(0, log.size):
                seen += log.batch(position).is_valid
            raise AssertionError("the loss went unseen")
        except BrokenFileError as error:
            assert scene.victim.name in str(error)
        assert seen > 3


def append(scene: Scene) -> None:
    scene.victim = scene.files[-1]
    scene.cut(0)
    with scene.log.producer() as producer:
        offset = producer.send("orders", b"more").get().offset
    assert [r.value for r in scene.log.read("orders", 0, offset)] == [b"more"]


def threads(scene: Scene) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(20):
                with scene.loss():
                    list(scene.log.read("orders"))
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=run) for _ in range(6)]
    scene.cut()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed, failed


def fork(scene: Scene) -> None:
    (columns, *_) = scene.log.scan("orders", start=scene.bases[1], partition=0)
    scene.cut(0)
    child = os.fork()
    gone = not columns.value.data.copy().any()
    if child == 0:
        os._exit(0 if gone else 1)
    assert gone
    assert os.waitpid(child, 0)[1] == 0


def faulthandler_before(scene: Scene) -> None:
    assert faulthandler.is_enabled()
    read(scene)


def faulthandler_after(scene: Scene) -> None:
    faulthandler.enable()
    read(scene)


def read_only(scene: Scene) -> None:
    with pylog.open(scene.victim.parent.parent, read_only=True) as log:
        assert len(list(log.read("orders"))) == RECORDS
        scene.cut(0)
        with scene.loss():
            list(log.read("orders"))


def shared_state(scene: Scene) -> None:
    """Nobody appends without the locks, and no clean mark is left."""
    directory = scene.victim.parent.parent
    scene.victim = directory / "pylog.shm"
    scene.cut(0)
    producer = scene.log.producer()
    for _ in range(2):
        try:
            producer.send("orders", b"lost").get()
        except pylog.StorageError as error:
            assert "pylog.shm" in str(error), error
        else:
            raise AssertionError("an append without a lock")
    try:
        scene.log.close()
    except pylog.PylogError:
        pass
    else:
        raise AssertionError("closed as if nothing had been")
    assert not (directory / ".kafka_cleanshutdown").exists()
    with pylog.open(directory) as log:
        assert [r.value for r in log.read("orders")] == [value(i) for i in range(RECORDS)]


if __name__ == "__main__":
    name, directory, mode = sys.argv[1:]
    guarded = mode == "guarded"
    if name == "faulthandler_before":
        faulthandler.enable()
    scene = Scene(Path(directory))
    globals()[name](scene)
    sys.stdout.write("done\n")
    sys.stdout.flush()
    os._exit(0)  # how a log whose segment was cut is closed is not what this is about
