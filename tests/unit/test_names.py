"""What names and links can do: no topic's name leaves the directory, no link in it is followed, nothing else blocks.

PYLOG_NAMES is the number of names; a release asks for a million.
"""

import contextlib
import os
import random
import shutil
import signal
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

NAMES = int(os.environ.get("PYLOG_NAMES", "20000"))
CREATED_EVERY = 200  # of the legal ones, so many are made: each costs a few fsyncs
LEGAL = set(string.ascii_letters + string.digits + "._-")
PIECES = [
    "..",
    ".",
    "/",
    "//",
    "\\",
    "~",
    "%2e%2e%2f",
    "..%2f",
    "-",
    "_",
    "*",
    "?",
    "a",
    "orders",
    "ORDERS",
    "x-0",
    "-0",
]
PIECES += [".lock", "pylog.topics", "pylog.shm", ".kafka_cleanshutdown", "CON", "/etc/passwd", "/tmp", "C:", "$(id)"]
PIECES += ["0", "0.log", "-delete", "__consumer_offsets", "partition.metadata"]
PIECES += ["\0", "\n", "\r", " ", "\x7f", "\ud800", "\u202e", "\ufeff", "\uff0e\uff0e", "\uff0f", "\u00e9", "e\u0301"]
PIECES += ["x" * 120, "x" * 249, "\U0001f600", f".{'0' * 32}-delete"]


def names(seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    alphabets = [string.printable, "".join(sorted(LEGAL)), "./\\\0", "".join(map(chr, range(0x300)))]
    for _ in range(NAMES):
        if chance.random() < 0.5:
            yield "".join(chance.choices(PIECES, k=chance.randrange(5)))
        else:
            yield "".join(chance.choices(chance.choice(alphabets), k=chance.choice([1, 2, 3, 8, 248, 249, 250, 300])))


def is_legal(name: str) -> bool:
    return 1 <= len(name) <= 249 and set(name) <= LEGAL and name not in (".", "..")


def test_no_name_leaves_the_directory(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}, {NAMES} names")
    memory = Path("/dev/shm")
    place = tmp_path if not memory.is_dir() else memory / f"pylog-names-{os.getpid()}"
    place.mkdir(exist_ok=True)
    begun, refused, made, known = time.monotonic(), 0, set(), 0
    try:
        with pylog.open(place / "data", flush_ms=None) as log:
            producer, consumer = log.producer(), log.consumer()
            uses: list[Callable[[str], object]] = [
                lambda name: log.admin.delete_topics([name]),
                lambda name: log.read(name),
                lambda name: log.scan(name),
                lambda name: consumer.assign([TopicPartition(name, 0)]),
                lambda name: consumer.seek(TopicPartition(name, 0), 0),
                lambda name: log.admin.describe_topics([name]),
                lambda name: log.admin.alter_configs(name, segment_ms=5),
                lambda name: log.admin.create_partitions({name: 2}),
                lambda name: log.admin.delete_records({TopicPartition(name, 0): -1}),
                lambda name: producer.send(name, b"x"),
                lambda name: producer.send_many(name, [b"x"]),
                lambda name: log.admin.create_topic(name),
            ]
            for number, name in enumerate(names(seed)):
                if not is_legal(name):
                    refused += 1
                    for use in (uses[-1], uses[number % len(uses)]):
                        with pytest.raises((pylog.InvalidTopicError, pylog.IllegalStateError)):
                            use(name)
                    continue
                known += 1
                if known % CREATED_EVERY == 0 and name not in made:
                    log.admin.create_topic(name)
                    made.add(name)
                    if len(made) % 2:
                        log.admin.delete_topics([name])
                        made.discard(name)
                elif name not in made:
                    with pytest.raises(pylog.PylogError):
                        uses[number % 9](name)
            assert log.admin.list_topics() == sorted(made)
            assert {path.name for path in place.iterdir()} == {"data"}
            assert {path.name for path in (place / "data").iterdir() if path.is_dir()} == {f"{name}-0" for name in made}
        print(f"{refused} refused, {known} legal, {NAMES / (time.monotonic() - begun):.0f} a second")
        assert refused > NAMES // 3
        assert known > NAMES // 20
    finally:
        if place != tmp_path:
            shutil.rmtree(place)


# -- what may lie where a file of ours is expected

TOP = [
    *(".lock", "pylog.shm", "pylog.shm.tmp", "pylog.topics", "pylog.topics.tmp", ".kafka_cleanshutdown"),
    *(".kafka_cleanshutdown.tmp", "recovery-point-offset-checkpoint", "recovery-point-offset-checkpoint.tmp"),
    *("log-start-offset-checkpoint", "replication-offset-checkpoint", "meta.properties"),
]
BASE = "0" * 20
INNER = [
    *(f"{BASE}.log", f"{BASE}.index", f"{BASE}.timeindex", f"{BASE}.txnindex", f"{BASE}.index.cleaned"),
    *(f"{BASE}.snapshot", f"{BASE}.log.swap", "leader-epoch-checkpoint", "partition.metadata"),
]
READ = ["pylog.topics", ".kafka_cleanshutdown", "recovery-point-offset-checkpoint", "log-start-offset-checkpoint"]
PLACES = TOP + ["orders-0", "orders-1"] + [f"orders-0/{name}" for name in INNER]
WAYS = ["link", "dangling", "directory link", "fifo", "device"]


@pytest.fixture
def alarm() -> Iterator[None]:
    """Whoever blocks is woken with an error."""

    def ring(*_: object) -> None:
        raise AssertionError("it blocks")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_log(path: Path, value: bytes) -> None:
    with pylog.open(path, index_interval_bytes=0) as log:
        log.admin.create_topic("orders", 2)
        for _ in range(3):
            log.producer().send("orders", value, partition=0).get()
        log.admin.delete_records({TopicPartition("orders", 0): 1})


def put(way: str, at: Path, target: Path) -> None:
    """Something else in the place of what is there."""
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
    if way == "link":
        at.symlink_to(target)
    elif way == "dangling":
        at.symlink_to(target.with_name("not-there"))
    elif way == "directory link":
        at.symlink_to(target if target.is_dir() else target.parent)
    elif way == "fifo":
        os.mkfifo(at)
    elif way == "device":
        if os.geteuid() != 0:
            pytest.skip("making a device node needs root")
        os.mknod(at, 0o20666, os.makedev(1, 5))  # /dev/zero: whoever reads it never comes to an end


def everything(path: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(path)): (file.read_bytes() if file.is_file() else None, file.lstat().st_mtime_ns)
        for file in path.rglob("*")
    }


def use(path: Path, place: str, *, read_only: bool) -> list[bytes]:
    """Everything that can be done with the directory; what goes wrong must say where."""
    got: list[bytes] = []
    with says(place), pylog.open(path, read_only=read_only) as log:
        with says(place):
            got += [record.value for record in log.read("orders")]
        if read_only:
            return got
        for partition in (0, 1):
            with says(place):
                log.producer().send("orders", b"own", partition=partition).get()
        for change in (
            lambda: log.admin.create_partitions({"orders": 3}),
            lambda: log.admin.create_topic("more"),
            lambda: log.admin.delete_records({TopicPartition("orders", 0): 2}),
            lambda: log.admin.delete_topics(["orders"]),
            log.flush,
        ):
            with says(place):
                change()
    return got


@contextlib.contextmanager
def says(place: str) -> Iterator[None]:
    try:
        yield
    except pylog.UnknownTopicOrPartitionError:
        pass  # what is no directory is no partition
    except (pylog.StorageError, pylog.CorruptRecordError, pylog.IllegalStateError) as error:
        if place.endswith(".swap") and "compaction was interrupted" in str(error):
            return  # read_only
        named = str(getattr(error, "filename", None) or getattr(error, "file", "")) + str(error)
        assert Path(place).name.removesuffix(".tmp").split(".cleaned")[0] in named


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_of_ours_is_not_followed_and_not_waited_for(
    place: str, way: str, alarm: None, tmp_path: Path
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    make_log(outside, b"secret")
    for partition in (0, 1):
        (outside / f"orders-{partition}" / f"{BASE}.txnindex").write_bytes(b"")
    make_log(inside, b"own")
    target = outside / place.removesuffix(".tmp").removesuffix(".cleaned").removesuffix(".swap")
    if not target.exists():
        target = outside / "pylog.topics"
    put(way, inside / place, target)
    before = everything(outside)
    for read_only in (True, False):
        assert set(use(inside, place, read_only=read_only)) <= {b"own"}
    assert everything(outside) == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_put_in_a_file_s_place_while_it_is_open_is_not_followed(
    place: str, way: str, alarm: None, tmp_path: Path
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    make_log(outside, b"secret")
    make_log(inside, b"own")
    target = outside / place if (outside / place).exists() else outside / "pylog.topics"
    before = everything(outside)
    with contextlib.suppress(pylog.StorageError, pylog.CorruptRecordError), pylog.open(inside) as log:
        put(way, inside / place, target)
        assert set(use(inside, place, read_only=False)) <= {b"own"}
        with says(place):
            assert {record.value for record in log.read("orders")} <= {b"own"}
        with says(place):
            log.producer().send("orders", b"own", partition=0).get()
    assert everything(outside) == before


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("place", [*READ, f"orders-0/{BASE}.log", f"orders-0/{BASE}.index"])
def test_a_link_to_the_very_same_bytes_is_refused_and_named(place: str, read_only: bool, tmp_path: Path) -> None:
    make_log(tmp_path / "data", b"own")
    moved = (tmp_path / "data" / place).rename(tmp_path / "moved")
    (tmp_path / "data" / place).symlink_to(moved)
    before = moved.read_bytes()
    with (
        pytest.raises(pylog.StorageError, match="symbolic links") as raised,
        pylog.open(tmp_path / "data", read_only=read_only) as log,
    ):
        list(log.read("orders"))
    assert raised.value.filename.endswith(place)
    assert moved.read_bytes() == before


def test_a_data_directory_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pylog.open(tmp_path / "link") as log:
        log.producer().send("orders", b"1").get()
    with pylog.open(tmp_path / "link", read_only=True) as log:
        assert [record.value for record in log.read("orders")] == [b"1"]
