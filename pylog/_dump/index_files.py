"""Showing .index, .timeindex and .txnindex files, and holding the first two against their .log.

    .index      8 bytes   i32 last offset of the batch - base offset, i32 position
    .timeindex 12 bytes   i64 timestamp, i32 last offset of the batch - base offset
    .txnindex  34 bytes   i16 version 0, i64 producer id, i64 first offset, i64 last offset, i64 last stable offset

Bytes behind the last whole entry are not looked at, except by the sanity check. An entry of offset 0 that is not the
first begins the zero tail that a crash leaves.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .batches import LogBytes
from .log_file import base_offset
from .options import Options
from .output import BrokenFileError, Output
from .records import read_records

OFFSET_ENTRY = np.dtype([("offset", ">i4"), ("position", ">i4")])
TIME_ENTRY = np.dtype([("timestamp", ">i8"), ("offset", ">i4")])
ABORTED_ENTRY = np.dtype(
    [("version", ">i2"), ("producerId", ">i8"), ("firstOffset", ">i8"), ("lastOffset", ">i8"), ("stable", ">i8")]
)
NO_TIMESTAMP = -1
WARM_BYTES = 8192


class Complaints(NamedTuple):
    """What is told once all files are through: the file's absolute path to pairs of numbers."""

    position: dict[str, dict[int, int]]
    timestamp: dict[str, list[tuple[int, int]]]
    order: dict[str, list[tuple[int, int]]]
    offset: dict[str, list[tuple[int, int]]]

    def report(self, output: Output) -> None:
        """Put them out in Kafka's words."""
        for path, pairs in self.position.items():
            lines = [f"  Index offset: {a}, log offset: {b}" for a, b in sorted(pairs.items(), reverse=True)]
            output.complain(f"Mismatches in :{path}", *lines)
        for path, found in self.timestamp.items():
            lines = [f"  Index timestamp: {a}, log timestamp: {b}" for a, b in found]
            output.complain(f"Found timestamp mismatch in :{path}", *lines)
        for path, found in self.order.items():
            lines = [f"  Index timestamp: {a}, Previously indexed timestamp: {b}" for a, b in found]
            output.complain(f"Found out of order timestamp in :{path}", *lines)
        for path, found in self.offset.items():
            lines = [f"Indexed offset: {a}, found log offset: {b}" for a, b in found]
            output.complain(f"The following indexed offsets are not found in :{path}", *lines)


def _sibling(path: str, suffix: str) -> str:
    return str(Path(path).with_name(Path(path).name.split(".")[0] + suffix))


def entries_of(path: str, entry: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], int]:
    """A file's whole entries, and how many bytes it has."""
    data = Path(path).read_bytes()
    return np.frombuffer(data, entry, len(data) // entry.itemsize), len(data)


def before_zero_tail(relative: np.ndarray[Any, Any]) -> int:
    """How many entries there are before the zeros that a crash leaves, told by the column of offsets."""
    zeros = np.flatnonzero(relative[1:] == 0)
    return int(zeros[0]) + 1 if len(zeros) else len(relative)


def _check_sanity(path: str, entry: np.dtype[Any], entries: np.ndarray[Any, Any], size: int, output: Output) -> None:
    """The check that decides at a broker's start whether the index is built anew."""
    if len(entries):
        if "timestamp" in (entry.names or ()) and entries["timestamp"][-1] < entries["timestamp"][0]:
            last, first = entries["timestamp"][-1], entries["timestamp"][0]
            raise BrokenFileError(f"{path}: the last timestamp, {last}, is less than the first, {first}")
        if entries["offset"][-1] < 0:
            base = base_offset(path)
            last = base + int(entries["offset"][-1])
            raise BrokenFileError(f"{path}: the last offset, {last}, is less than the base offset, {base}")
    if size % entry.itemsize:
        raise BrokenFileError(f"{path}: {size} bytes are no multiple of {entry.itemsize}")
    output.text(f"{output.file} passed sanity check.\n")
    output.item("sane")


def dump_offset_index(path: str, options: Options, output: Output, complaints: Complaints) -> None:
    """Show an .index; entries whose offset is not that of the batch they point at become complaints."""
    base = base_offset(path)
    with LogBytes(_sibling(path, ".log")) as log:
        entries, size = entries_of(path, OFFSET_ENTRY)
        if not len(entries):
            output.text(f"{output.file} is empty.\n")
            output.item("empty")
            return
        if options.checks_sanity:
            _check_sanity(path, OFFSET_ENTRY, entries, size, output)
            return
        count = before_zero_tail(entries["offset"])
        for relative, position in entries[:count].tolist():
            offset = base + relative
            in_log = _last_offset_at(log, position, options.message_bytes_max)
            if in_log != offset:
                complaints.position.setdefault(str(Path(path).absolute()), {})[offset] = in_log
            if not options.verifies_only:
                output.text(f"offset: {offset} position: {position}\n")
                output.item("index", offset=offset, position=position)


def _last_offset_at(log: LogBytes, position: int, bytes_max: int) -> int:
    if not 0 <= position <= log.size:
        raise BrokenFileError(f"{log.name}: an index entry points at {position}, the file has {log.size} bytes")
    for at, _, offset, magic in log.spans(position, min(log.size, position + bytes_max)):
        return log.last_offset(at, offset, magic)
    raise BrokenFileError(f"{log.name}: an index entry points at {position}, where no whole batch is")


class _Walk:
    """Positions and last offsets of the batches from `start` on, remembered: time entries search them again."""

    def __init__(self, log: LogBytes, start: int) -> None:
        self.problem: BrokenFileError | None = None
        found = []
        try:
            for at, _, offset, magic in log.spans(start, log.size):
                found.append((at, log.last_offset(at, offset, magic)))
        except BrokenFileError as error:
            self.problem = error
        self.positions, self.last_offsets = np.array(found, np.int64).reshape(-1, 2).T
        self.highest = np.maximum.accumulate(self.last_offsets) if found else self.last_offsets

    def covers(self, start: int) -> bool:
        """Whether a walk from there would be the end of this one."""
        i = int(np.searchsorted(self.positions, start))
        return i < len(self.positions) and int(self.positions[i]) == start

    def first_with(self, offset: int, start: int) -> tuple[int, int] | None:
        """Position and last offset of the first batch from `start` on that reaches `offset`.

        Raises:
            BrokenFileError: the walk did not get through; Kafka wants all of it before it looks.
        """
        if self.problem:
            raise self.problem
        first = int(np.searchsorted(self.positions, start))
        i = int(np.searchsorted(self.highest, offset))
        if i < first:
            reaching = np.flatnonzero(self.last_offsets[first:] >= offset)
            i = first + int(reaching[0]) if len(reaching) else len(self.positions)
        return None if i == len(self.positions) else (int(self.positions[i]), int(self.last_offsets[i]))


class _Finder:
    """Finds batches by an offset, from where the offset index says."""

    def __init__(self, log: LogBytes, index: np.ndarray[Any, Any]) -> None:
        self._log = log
        self._index = index
        self._walks: list[_Walk] = []

    def find(self, relative: int, offset: int) -> tuple[int, int] | None:
        """Position and last offset of the batch that holds `offset`, or of a later one."""
        slot = _lookup(self._index["offset"], relative)
        start = 0 if slot < 0 else int(self._index["position"][slot])
        if not 0 <= start <= self._log.size:
            raise BrokenFileError(f"{self._log.name}: an index entry points at {start}, outside of the file")
        if not self._walks:
            self._walks.append(_Walk(self._log, 0))
        for walk in self._walks:
            if walk.covers(start):
                return walk.first_with(offset, start)
        self._walks.append(_Walk(self._log, start))
        return self._walks[-1].first_with(offset, start)


def _lookup(offsets: np.ndarray[Any, Any], target: int) -> int:
    """Slot of the largest offset up to `target`, -1 if there is none; in a broken index, the one that Kafka finds."""
    count = len(offsets)
    if count == 0:
        return -1
    first_warm = max(0, count - 1 - WARM_BYTES // OFFSET_ENTRY.itemsize)
    if offsets[first_warm] < target:
        low, high = first_warm, count - 1
    elif offsets[0] > target:
        return -1
    else:
        low, high = 0, first_warm
    while low < high:
        middle = (low + high + 1) >> 1
        if offsets[middle] > target:
            high = middle - 1
        elif offsets[middle] < target:
            low = middle
        else:
            return middle
    return low


def dump_time_index(path: str, options: Options, output: Output, complaints: Complaints) -> None:
    """Show a .timeindex; entries that do not fit their batch, or fall back in time, become complaints."""
    base = base_offset(path)
    name = str(Path(path).absolute())
    with LogBytes(_sibling(path, ".log")) as log:
        index, _ = entries_of(_sibling(path, ".index"), OFFSET_ENTRY)
        entries, size = entries_of(path, TIME_ENTRY)
        if options.checks_sanity:
            _check_sanity(path, TIME_ENTRY, entries, size, output)
            return
        finder = _Finder(log, index)
        previous = NO_TIMESTAMP
        for timestamp, relative in entries[: before_zero_tail(entries["offset"])].tolist():
            offset = base + relative
            found = finder.find(relative, offset)
            if found is None or found[1] != offset:
                complaints.offset.setdefault(name, []).append((offset, -1 if found is None else found[1]))
            else:
                in_log = _largest_timestamp(log, found[0])
                if in_log != timestamp:
                    complaints.timestamp.setdefault(name, []).append((timestamp, in_log))
                if previous >= timestamp:
                    complaints.order.setdefault(name, []).append((timestamp, previous))
            if not options.verifies_only:
                output.text(f"timestamp: {timestamp} offset: {offset}\n")
                output.item("timeindex", timestamp=timestamp, offset=offset)
            previous = timestamp


def _largest_timestamp(log: LogBytes, position: int) -> int:
    records = read_records(log, log.batch(position), with_data=False)
    if records.problem:
        raise BrokenFileError(records.problem)
    return max([NO_TIMESTAMP, *records.timestamps])


def dump_aborted_index(path: str, output: Output) -> None:
    """Show a .txnindex."""
    base_offset(path)
    entries, _ = entries_of(path, ABORTED_ENTRY)
    # Kafka looks at the version's high byte alone, shows that, and gives up where it is over 0.
    shown = entries["version"] >> 8
    for number in np.flatnonzero(entries["version"]).tolist():
        message = f"{path}: entry {number} has version {entries['version'][number]}, 0 is known"
        if shown[number] > 0:
            raise BrokenFileError(message)
        output.complain(message)
    for high_byte, (version, producer_id, first, last, stable) in zip(shown.tolist(), entries.tolist(), strict=True):
        output.text(
            f"version: {high_byte} producerId: {producer_id} firstOffset: {first} lastOffset: {last}"
            f" lastStableOffset: {stable}\n"
        )
        output.item(
            "aborted",
            version=version,
            producerId=producer_id,
            firstOffset=first,
            lastOffset=last,
            lastStableOffset=stable,
        )
