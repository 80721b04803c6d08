"""Damaged bytes, seen from Python: a .log that lies is reported or harmless, indexes are only hints."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pylog
from pylog import TopicPartition

ZERO = TopicPartition("orders", 0)
T0 = 1_700_000_000_000
RECORDS = 60


class Answers(NamedTuple):
    """What a log says to every question about place and time."""

    read: list[tuple[int, bytes, int]]
    seeks: list[int]
    times: list[Any]
    ends: tuple[int, int]


def answers(log: pylog.Log) -> Answers:
    with log.consumer() as consumer:
        start, end = consumer.beginning_offsets([ZERO])[ZERO], consumer.end_offsets([ZERO])[ZERO]
        consumer.assign([ZERO])
        seeks = []
        for offset in range(start, end):
            consumer.seek(ZERO, offset)
            seeks.append(consumer.poll(max_records=1)[ZERO][0].offset)
        times = [consumer.offsets_for_times({ZERO: T0 + t})[ZERO] for t in range(-5, 10 * RECORDS + 20, 7)]
    return Answers([(r.offset, r.value, r.timestamp) for r in log.read("orders")], seeks, times, (start, end))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of opens, and none of them is about fsync."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pylog-bytes-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def original(memory: Path) -> Path:
    """Several small segments with dense indexes, closed cleanly."""
    path = memory / "original"
    with pylog.open(path, segment_bytes=500, index_interval_bytes=0) as log:
        with log.producer(batch_size=160) as producer:
            for i in range(RECORDS):
                producer.send("orders", b"value %04d" % i, timestamp_ms=T0 + 10 * i)
        assert len(list((path / "orders-0").glob("*.log"))) > 3
    return path


@pytest.fixture(scope="module")
def expected(original: Path) -> Answers:
    with pylog.open(original, read_only=True) as log:
        return answers(log)


@pytest.fixture
def copy(original: Path, memory: Path) -> Iterator[Path]:
    path = memory / "copy"
    yield Path(shutil.copytree(original, path))
    shutil.rmtree(path)


def clean(path: Path) -> None:
    """Make the directory look cleanly closed again."""
    (path / ".kafka_cleanshutdown").write_text('{"version":0,"brokerEpoch":-1}')


# -- the .log


def flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every bit of it flipped, one at a time; where, and the bytes."""
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            yield position, bytes(damaged)


@pytest.fixture(scope="module")
def small(memory: Path) -> Path:
    """One segment of three batches, closed cleanly."""
    path = memory / "small"
    with pylog.open(path) as log:
        for i in range(3):
            log.producer().send("orders", b"value %d" % i, b"key", timestamp_ms=T0 + i).get()
    return path


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writing"])
def test_every_flipped_bit_of_a_log_is_reported_with_its_place_or_harmless(small: Path, read_only: bool) -> None:
    name = f"orders-0/{0:020d}.log"
    segment = small / name
    whole = segment.read_bytes()
    batch_bytes = len(whole) // 3
    with pylog.open(small, read_only=True) as log:
        good = [(r.offset, r.key, r.value, r.timestamp) for r in log.read("orders")]
    reported = 0
    try:
        for position, damaged in flips(whole):
            segment.write_bytes(damaged)
            clean(small)
            log = pylog.open(small, read_only=read_only)
            read: list[Any] = []
            try:
                for record in log.read("orders"):
                    read.append((record.offset, record.key, record.value, record.timestamp))
            except pylog.CorruptRecordError as error:
                batch = position // batch_bytes
                assert error.file == name
                assert name in str(error)
                assert error.position == batch * batch_bytes
                assert error.offset in (None, batch) or position % batch_bytes < 8
                assert segment.read_bytes() == damaged  # reported, not repaired
                reported += 1
            else:
                # Neither CRC nor order covers the leader epoch: nothing that a record shows depends on it.
                assert read == good
                assert 12 <= position % batch_bytes < 16
            assert read == good[: len(read)]
            try:
                log.close()
            except pylog.CorruptRecordError:
                assert not read_only
    finally:
        segment.write_bytes(whole)
        clean(small)
    assert reported == (len(whole) - 3 * 4) * 8


def test_a_damaged_batch_hides_none_before_it_and_stays_until_repaired(copy: Path) -> None:
    segment = sorted((copy / "orders-0").glob("*.log"))[1]
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    base, following = int(segment.stem), int(sorted((copy / "orders-0").glob("*.log"))[2].stem)
    for _ in range(2):
        with pylog.open(copy) as log, log.consumer() as consumer:
            consumer.assign([ZERO])
            seen: list[int] = []
            with pytest.raises(pylog.CorruptRecordError, match=f"orders-0/{segment.name}") as raised:
                seen.extend(record.offset for _ in range(RECORDS) for record in consumer.poll(max_records=3)[ZERO])
            assert seen == list(range(consumer.position(ZERO)))
            assert base < consumer.position(ZERO) < following
            assert raised.value.position > 0
            consumer.seek(ZERO, following)
            behind: list[int] = []
            while polled := consumer.poll():
                behind += [record.offset for record in polled[ZERO]]
            assert behind == list(range(following, RECORDS))


def test_what_is_read_without_checking_crcs_is_read_all_the_same(small: Path) -> None:
    segment = small / f"orders-0/{0:020d}.log"
    whole = segment.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"value 1") + 6] ^= 1
    try:
        segment.write_bytes(damaged)
        with pylog.open(small, read_only=True) as log:
            with log.consumer("orders", check_crcs=False) as consumer:
                assert [r.value for r in consumer.poll()[ZERO]] == [b"value 0", b"value 0", b"value 2"]
            with log.consumer("orders") as consumer:
                assert [r.value for r in consumer.poll()[ZERO]] == [b"value 0"]
                with pytest.raises(pylog.CorruptRecordError, match="crc"):
                    consumer.poll()
    finally:
        segment.write_bytes(whole)


def test_a_segment_that_is_missing_is_reported_when_it_is_read(copy: Path) -> None:
    segments = sorted((copy / "orders-0").glob("*.log"))
    segments[1].unlink()
    with pylog.open(copy) as log, pytest.raises((pylog.CorruptRecordError, pylog.StorageError), match="orders-0"):
        list(log.read("orders"))


# -- indexes

DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "filled": lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + path.read_bytes()),
    "a page of zeros behind": lambda path: path.write_bytes(path.read_bytes() + bytes(4096)),
    "another's": lambda path: path.write_bytes(bytes(reversed(path.read_bytes()))),
}
KINDS = ["index", "timeindex", "snapshot", "*"]


def damage_all(directory: Path, damage: str, kind: str) -> None:
    victims = [path for path in directory.iterdir() if path.suffix in (".index", ".timeindex", ".snapshot")]
    victims = [path for path in victims if kind in (path.suffix[1:], "*")]
    assert victims
    for path in victims:
        DAMAGE[damage](path)


@pytest.mark.parametrize("clean_mark", [True, False], ids=["clean", "unclean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_indexes_change_no_answer(
    damage: str, kind: str, clean_mark: bool, copy: Path, expected: Answers
) -> None:
    damage_all(copy / "orders-0", damage, kind)
    if not clean_mark:
        (copy / ".kafka_cleanshutdown").unlink()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pylog.open(copy, read_only=True) as log:
        assert answers(log) == expected
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    for round_number in range(2):
        with pylog.open(copy) as log:
            found = answers(log)
            assert found.read[:RECORDS] == expected.read
            assert found.seeks[:RECORDS] == expected.seeks
            if round_number == 0:
                assert found == expected
            assert log.producer().send("orders", b"more").get().offset == RECORDS + round_number


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_indexes_are_made_whole_on_the_disk(damage: str, copy: Path, original: Path) -> None:
    damage_all(copy / "orders-0", damage, "*")
    with pylog.open(copy) as log:
        answers(log)
    for made in sorted((original / "orders-0").glob("*.*index")):
        assert (copy / "orders-0" / made.name).read_bytes() == made.read_bytes(), made.name


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_no_flipped_bit_of_an_index_changes_an_answer(suffix: str, copy: Path, expected: Answers) -> None:
    victim = sorted((copy / "orders-0").glob("*" + suffix))[1]
    whole = victim.read_bytes()
    assert len(whole) >= 16  # two entries
    for position, damaged in flips(whole):
        victim.write_bytes(damaged)
        with pylog.open(copy, read_only=True) as log:
            assert answers(log) == expected, f"bit of byte {position}"
