"""What the golden file holds, as tests see it: partitions and expected records; and an independent look at segments."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pylog import Columns, Record, TopicPartition

SIDES = ("clean", "killed")

PARTITIONS = [
    TopicPartition(topic, partition)
    for topic, count in {
        "codec-none": 1,
        "codec-gzip": 1,
        "codec-snappy": 1,
        "codec-lz4": 1,
        "codec-zstd": 1,
        "odd": 1,
        "logappend": 1,
        "rolled-ms": 1,
        "rolled-index": 1,
        "rolled-size": 1,
        "partitions": 4,
        "txn": 2,
        "compact-plain": 1,
        "compact-lz4": 1,
        "deleted": 1,
        "epochs": 1,
        "empty": 2,
    }.items()
    for partition in range(count)
]

# How the broker had them, where that is not Kafka's default and decides how segments and indexes come out.
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"codec-{codec}": {"index_interval_bytes": 512} for codec in ("none", "gzip", "snappy", "lz4", "zstd")},
    "logappend": {"message_timestamp_type": "LogAppendTime"},
    "rolled-ms": {"segment_ms": 60_000, "index_interval_bytes": 256},
    "rolled-index": {"index_interval_bytes": 1, "segment_index_bytes": 1024},
    "rolled-size": {"segment_bytes": 1 << 20},
    "txn": {"index_interval_bytes": 1, "segment_index_bytes": 512},
    "compact-plain": {"cleanup_policy": "compact", "index_interval_bytes": 256},
    "compact-lz4": {"cleanup_policy": "compact", "index_interval_bytes": 256},
}

EXACT_BYTES_MAX = 512


def name(tp: TopicPartition) -> str:
    """The partition's directory; also its name in a test's id."""
    return f"{tp.topic}-{tp.partition}"


class Row(NamedTuple):
    """A record in the notation of expected/: bytes as text where that is short and printable, else base64 or a sum."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str | None], ...]


class Expected(NamedTuple):
    """What a real consumer saw of a partition."""

    low: int
    high: int
    rows: list[Row]


def notation(data: bytes | memoryview | None) -> str | None:
    """Bytes as expected/ has them."""
    if data is None:
        return None
    data = bytes(data)
    if len(data) > EXACT_BYTES_MAX:
        return f"sha256:{len(data)}:{hashlib.sha256(data).hexdigest()}"
    plain = data.decode("ascii", "replace")
    if data.isascii() and plain.isprintable() and not plain.startswith(("b64:", "sha256:")):
        return plain
    return "b64:" + base64.b64encode(data).decode()


def row(record: Record) -> Row:
    """A record that pylog gave, for comparison."""
    headers = tuple((key, notation(value)) for key, value in record.headers)
    key, value = notation(record.key), notation(record.value)
    return Row(record.offset, record.timestamp, record.timestamp_type, key, value, headers)


def rows(records: Iterable[Record]) -> list[Row]:
    """Records that pylog gave, for comparison."""
    return [row(record) for record in records]


def column_rows(columns: Columns) -> list[tuple[int, int, str | None, str | None]]:
    """(offset, timestamp, key, value) of each record of a chunk."""
    assert len(columns.offset) == len(columns.timestamp) == len(columns.key) == len(columns.value) == len(columns)
    return [
        (int(offset), int(timestamp), notation(key), notation(value))
        for offset, timestamp, key, value in zip(
            columns.offset, columns.timestamp, columns.key, columns.value, strict=True
        )
    ]


_types = {"CreateTime": 0, "LogAppendTime": 1}
_loaded: dict[Path, Expected] = {}


def expected(root: Path, tp: TopicPartition, *, committed: bool = False) -> Expected:
    """The records of a partition; committed: as an isolation level of read_committed shows them."""
    path = root / "expected" / f"{name(tp)}.committed.jsonl"
    if not committed or not path.exists():  # without a transaction both levels show the same
        path = root / "expected" / f"{name(tp)}.jsonl"
    if path not in _loaded:
        first, *lines = (json.loads(line) for line in path.read_text().splitlines())
        _loaded[path] = Expected(
            first["low"],
            first["high"],
            [
                Row(
                    line["offset"],
                    line["timestamp"],
                    _types[line["type"]],
                    line["key"],
                    line["value"],
                    tuple((key, value) for key, value in line["headers"]),
                )
                for line in lines
            ],
        )
    return _loaded[path]


class DumpedRecord(NamedTuple):
    """A record as Kafka's dump tool shows it, control records too; lengths are -1 for null."""

    control: bool
    offset: int
    timestamp: int
    key_bytes: int
    value_bytes: int


_DUMP_LINE = re.compile(
    rb"^baseOffset: .* isControl: (true|false) |"
    rb"^\| offset: (\d+) (?:CreateTime|LogAppendTime): (-?\d+) keySize: (-?\d+) valueSize: (-?\d+) ",
    re.MULTILINE,
)


def dumped_records(root: Path, partition: str) -> list[DumpedRecord]:
    """All records of a partition in the golden output of Kafka's dump tool."""
    found: list[DumpedRecord] = []
    for path in sorted((root / "dump" / partition).glob("*.log.data.txt")):
        control = False
        for line in _DUMP_LINE.finditer(path.read_bytes()):
            if line[1]:
                control = line[1] == b"true"
            else:
                found.append(DumpedRecord(control, *(int(figure) for figure in line.groups()[1:])))
    return found


def copy_topic(root: Path, side: str, topic: str, to: Path, *, settings: bool = False) -> Path:
    """A copy of one topic of a data directory, with the files that stand beside it.

    settings: put the broker's settings of the topic beside them, as pylog keeps them.
    """
    to.mkdir(parents=True)
    for path in sorted((root / side).iterdir()):
        if path.is_file():
            shutil.copy2(path, to)
        elif path.name.rpartition("-")[0] == topic:
            shutil.copytree(path, to / path.name)
    if settings:
        count = sum(1 for tp in PARTITIONS if tp.topic == topic)
        entry = {"partitions": count, "config": SETTINGS.get(topic, {}), "dense": False, "id": "AAAAAAAAAAAAAAAAAAAAAA"}
        (to / "pylog.topics").write_text(json.dumps({"version": 1, "topics": {topic: entry}}))
    return to


def contents(root: Path) -> dict[str, tuple[bytes | None, int]]:
    """Every name below a directory, with its bytes (None: a directory) and its time of modification."""
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
    }


class Batch(NamedTuple):
    """What of a batch decides the indexes."""

    base_offset: int
    last_offset: int
    position: int
    size: int
    max_timestamp: int
    leader_epoch: int


def batches(log_file: Path) -> Iterator[Batch]:
    """The batches of a segment, read with nothing but the byte table."""
    data = log_file.read_bytes()
    position = 0
    while position < len(data):
        header = data[position : position + 61]
        base_offset = int.from_bytes(header[0:8], "big")
        size = 12 + int.from_bytes(header[8:12], "big")
        assert position + size <= len(data), f"{log_file}: the batch at {position} is cut"
        assert header[16] == 2, f"{log_file}: magic {header[16]} at {position}"
        yield Batch(
            base_offset,
            base_offset + int.from_bytes(header[23:27], "big"),
            position,
            size,
            int.from_bytes(header[35:43], "big", signed=True),
            int.from_bytes(header[12:16], "big"),
        )
        position += size


class Producer(NamedTuple):
    """A producer's entry in a .snapshot."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    txn_first_offset: int


def producers(snapshot: Path) -> list[Producer]:
    """The entries of a producer snapshot."""
    data = snapshot.read_bytes()
    entries = [Producer(*struct.unpack(">qhiqiqiq", data[at : at + 46])) for at in range(10, len(data), 46)]
    assert len(entries) == int.from_bytes(data[6:10], "big")
    return entries


def offset_entries(index: Path) -> list[tuple[int, int]]:
    """(relative offset, position) of each entry of an .index."""
    data = index.read_bytes()
    assert len(data) % 8 == 0, f"{index}: {len(data)} bytes are no whole entries"
    return [
        (int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big"))
        for at in range(0, len(data), 8)
    ]


def time_entries(index: Path) -> list[tuple[int, int]]:
    """(timestamp, relative offset) of each entry of a .timeindex."""
    data = index.read_bytes()
    assert len(data) % 12 == 0, f"{index}: {len(data)} bytes are no whole entries"
    return [
        (int.from_bytes(data[at : at + 8], "big", signed=True), int.from_bytes(data[at + 8 : at + 12], "big"))
        for at in range(0, len(data), 12)
    ]


def modelled_indexes(
    segment: list[Batch], base_offset: int, interval_bytes: int, closed_at: Iterable[int] = ()
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The entries that a segment's batches give by the written rules.

    closed_at: offsets at which the log was closed and opened again in the middle of the segment; each forces a time
    entry.  Counting goes on from the last entry.
    """
    closed = set(closed_at)
    offsets: list[tuple[int, int]] = []
    times: list[tuple[int, int]] = []
    largest, holder, counted_from = -1, base_offset, 0

    def note_time() -> None:
        if largest > (times[-1][0] if times else -1):
            times.append((largest, holder - base_offset))

    for batch in segment:
        if batch.base_offset in closed:
            note_time()
        if batch.max_timestamp > largest:
            largest, holder = batch.max_timestamp, batch.last_offset
        if batch.position - counted_from > interval_bytes:
            offsets.append((batch.last_offset - base_offset, batch.position))
            note_time()
            counted_from = batch.position
    note_time()
    return offsets, times


def check_indexes_mean_the_log(partition: Path) -> None:
    """Every entry points at a batch that is there, and says what the log says; entries rise; files have no tails."""
    for log_file in sorted(partition.glob("*.log")):
        base_offset = int(log_file.stem)
        segment = list(batches(log_file))
        last_offset_at = {batch.position: batch.last_offset for batch in segment}
        offsets = offset_entries(log_file.with_suffix(".index"))
        assert offsets == sorted(set(offsets)), f"{log_file.stem}.index does not rise"
        for relative, position in offsets:
            assert last_offset_at.get(position) == base_offset + relative, (
                f"{log_file.stem}.index: {relative}, {position}"
            )
        largest_by: dict[int, int] = {}
        largest = -1
        for batch in segment:
            if batch.max_timestamp > largest:
                largest = batch.max_timestamp
                largest_by[batch.last_offset] = largest
        times = time_entries(log_file.with_suffix(".timeindex"))
        assert all(before[0] < after[0] for before, after in itertools.pairwise(times))
        for timestamp, relative in times:
            assert largest_by.get(base_offset + relative) == timestamp, f"{log_file.stem}.timeindex: {timestamp}"
        assert (times[-1][0] if times else -1) == largest, f"{log_file.stem}.timeindex does not end with the largest"
