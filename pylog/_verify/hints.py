"""Files that can be made anew from the .log: indexes, snapshots, the small text files; each held against the log."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from pylog._dump import checkpoint, snapshot
from pylog._dump.index_files import ABORTED_ENTRY, OFFSET_ENTRY, TIME_ENTRY, before_zero_tail, entries_of
from pylog._dump.output import BrokenFileError, Output

from .engine import NOTHING_THERE, Aborted, Numbers, Places
from .findings import Segment

_NO_NUMBERS: Numbers = np.empty(0, np.int64)


class Index:
    """The entries of an .index or .timeindex, without the zeros that a crash or a running broker leaves behind them.

    problem: what is wrong with the file itself.
    """

    def __init__(self, path: Path, entry: np.dtype[Any]) -> None:
        self.path = path
        self.problem: str | None = None
        self.is_missing = False
        self.offsets = self.values = _NO_NUMBERS
        try:
            entries, size = entries_of(str(path), entry)
        except FileNotFoundError:
            self.is_missing = True
            return
        first, second = entry.names or ()
        count = before_zero_tail(entries["offset"])
        if not entries[:1].tobytes().strip(b"\0"):
            count = 0
        if entries[count:].tobytes().strip(b"\0"):
            self.problem = f"entries behind entry {count}, which is zero"
        elif size % entry.itemsize:
            self.problem = f"{size} bytes are no multiple of {entry.itemsize}"
        for name in (first, second):
            falls = np.flatnonzero(np.diff(entries[name][:count].astype(np.int64)) <= 0)
            if len(falls):
                self.problem = f"entries out of order: {name} of entry {falls[0] + 1} does not rise"
        value = second if first == "offset" else first
        self.offsets = entries["offset"][:count].astype(np.int64)
        self.values = entries[value][:count].astype(np.int64)


class SegmentHints:
    """The index files of a segment: read before its walk, held against what the walk found after it."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._index = Index(segment.sibling(".index"), OFFSET_ENTRY)
        self._times = Index(segment.sibling(".timeindex"), TIME_ENTRY)
        self.places = Places(self._index.values, self._times.offsets + segment.base_offset)

    def problems(self, *, may_run_ahead: bool) -> list[tuple[str, str]]:
        """(suffix, what is wrong).  may_run_ahead: somebody appends, entries may lie behind what the walk saw."""
        found = []
        for suffix, index, wrong in (
            (".index", self._index, self._wrong_positions(may_run_ahead)),
            (".timeindex", self._times, self._wrong_times(may_run_ahead)),
        ):
            if index.problem is not None and not may_run_ahead:
                found.append((suffix, index.problem))
            elif wrong is not None:
                found.append((suffix, wrong))
        return found

    @property
    def missing(self) -> list[str]:
        """Suffixes of files that are not there."""
        return [index.path.suffix for index in (self._index, self._times) if index.is_missing]

    def _wrong_positions(self, may_run_ahead: bool) -> str | None:
        positions = self._index.values
        offsets = self._index.offsets + self._segment.base_offset
        found = self.places.offsets_at(positions)
        wrong = found != offsets
        for cut in self._segment.cuts:
            wrong &= (positions < cut.position) | (positions >= cut.end)
        if may_run_ahead:
            wrong &= positions < self._segment.size
        if not wrong.any():
            return None
        at = int(np.flatnonzero(wrong)[0])
        there = "no batch begins there" if found[at] == NOTHING_THERE else f"the batch there ends with {found[at]}"
        return f"{_count(wrong)}: entry {at} has offset {offsets[at]} at position {positions[at]}, {there}"

    def _wrong_times(self, may_run_ahead: bool) -> str | None:
        offsets = self._times.offsets + self._segment.base_offset
        found = self.places.timestamps_at(offsets)
        wrong = found != self._times.values
        for cut in self._segment.cuts:
            # Whether a batch ended there, nobody can tell; behind a tail that is lost, nothing is known at all.
            wrong &= (offsets < cut.first_offset) | (cut.next_offset is not None and offsets >= cut.next_offset)
        if may_run_ahead:
            wrong &= offsets < self._segment.next_offset
        if not wrong.any():
            return None
        at = int(np.flatnonzero(wrong)[0])
        there = "no batch ends with it" if found[at] == NOTHING_THERE else f"its batch has {found[at]}"
        return f"{_count(wrong)}: entry {at} has timestamp {self._times.values[at]} for offset {offsets[at]}, {there}"


def _count(wrong: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    count = int(wrong.sum())
    return f"{count} of {len(wrong)} entries point wrong"


def aborted_problem(path: Path, expected: list[Aborted]) -> str | None:
    """What is wrong with a .txnindex that should have these entries."""
    try:
        entries, size = entries_of(str(path), ABORTED_ENTRY)
    except FileNotFoundError:
        return f"missing, {len(expected)} transactions were aborted" if expected else None
    if size % ABORTED_ENTRY.itemsize:
        return f"{size} bytes are no multiple of {ABORTED_ENTRY.itemsize}"
    if entries["version"].any():
        return f"entry {int(np.flatnonzero(entries['version'])[0])} is not of version 0"
    found = [Aborted(*fields[1:]) for fields in entries.tolist()]
    for number, (has, wants) in enumerate(zip(found, expected, strict=False)):
        if has != wants:
            return f"entry {number} is {tuple(has)}, the log has {tuple(wants)}"
    if len(found) != len(expected):
        return f"{len(found)} entries, the log has {len(expected)} aborted transactions"
    return None


def snapshot_problem(path: Path) -> str | None:
    """What is wrong with a snapshot; one that vanishes is none."""
    with contextlib.suppress(FileNotFoundError):
        return snapshot.problem_of(path.read_bytes())
    return None


def small_file_problem(path: Path) -> str | None:
    """What is wrong with the form of a checkpoint, partition.metadata, meta.properties or clean mark."""
    try:
        checkpoint.dump_checkpoint(str(path), Output(as_json=False, out=io.BytesIO(), err=io.BytesIO()))
    except FileNotFoundError:
        return None
    except BrokenFileError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def read_epochs(path: Path) -> list[tuple[int, int]]:
    """(epoch, start offset) of a leader-epoch-checkpoint that is of its form; empty where there is none."""
    try:
        rows = checkpoint.rows(str(path), path.read_text("utf-8"), checkpoint.EPOCH_LINE)
    except FileNotFoundError:
        return []
    return [(int(epoch), int(start)) for epoch, start in rows]
