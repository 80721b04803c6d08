"""Giving back what settled messages and old journal entries take on the disk."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._errors import ClosedError, ForkError, UnknownTopicOrPartitionError
from .._types import Array
from .journal import SNAPSHOT_ENTRY
from .state import State
from .table import FRONTIER, LOOKED, SNAPSHOT
from .window import wall_of

if TYPE_CHECKING:
    from .._log import Log
    from .._partition import Partition

SECONDS = 0.05
CARRIED_MAX = 2000
ROOM_BYTES = 4096  # beside a carried message, in its batch


class Space:
    """Deletes segments of a queue's topic, soon after they hold nothing that is needed.  Thread-safe."""

    def __init__(self, log: Log, state: State, bytes_max: int) -> None:
        self._log = log
        self._state = state
        self._bytes_max = bytes_max  # of a segment
        self._lock = threading.Lock()
        self._is_due = self._is_closed = False
        self._lag_max = 0  # messages that a segment holds; 0: not known yet

    def look_soon(self) -> None:
        """Something was settled.  Where much was, since anybody has looked, it is waited for: space stays bounded."""
        words = self._state.table.words
        if words[FRONTIER] - words[LOOKED] > self._lag_max:
            self.look()
        else:
            self.look_later()

    def look_later(self) -> None:
        """Look in the background."""
        if not self._is_due:
            self._is_due = True
            self._log.background.after(SECONDS, self.look)

    def look(self) -> None:
        """Delete what can be deleted now."""
        self._is_due = False
        # Nothing is to be done where the queue was closed meanwhile, or its topic deleted.
        with contextlib.suppress(ClosedError, ForkError, UnknownTopicOrPartitionError), self._lock:
            if not self._is_closed:
                with self._state.table.making_space:
                    self._shorten_journal()
                    self._delete_settled()

    def close(self) -> None:
        """Look once more, and not again."""
        self.look()
        with self._lock:
            self._is_closed = True

    def _shorten_journal(self) -> None:
        """Once it has a second segment, say what still counts anew, and delete what was said before."""
        journal, table = self._state.journal, self._state.table
        bases = _bases(journal.partition)
        if len(bases) < 2 or journal.partition.native.state().log_bytes < 2 * int(table.words[SNAPSHOT]):
            return
        with table.held:
            if _bases(journal.partition) != bases:
                return  # another process was at it
            state = journal.partition.native.state()
            begin = self._write_snapshot()
            table.words[SNAPSHOT] = max(0, journal.partition.native.state().log_bytes - state.log_bytes)
        journal.flush()
        self._log.admin.delete_records({journal.partition.tp: begin})

    def _write_snapshot(self) -> int:
        """Caller holds the table."""
        journal, table = self._state.journal, self._state.table
        slots = table.live()
        entries = table.entries[slots]
        told = np.zeros(len(slots), SNAPSHOT_ENTRY)
        for name in ("offset", "note", "body", "count"):
            told[name] = entries[name]
        told["due"] = np.where(entries["owner"] == 0, wall_of(entries["due"]), 0)
        begin = journal.snapshot(int(table.words[FRONTIER]), told)
        journal.keep(self._state.settings)
        # What the entries point to goes with the old segments: it is said again, and pointed to there.
        for at in np.flatnonzero(entries["note"] >= 0).tolist():
            reason = journal.reason(int(entries["note"][at])).encode()
            table.entries["note"][slots[at]] = journal.nack(
                int(entries["offset"][at]), int(told["due"][at]), int(entries["count"][at]), reason
            )
        for at in np.flatnonzero(entries["body"] >= 0).tolist():
            table.entries["body"][slots[at]] = journal.carry(journal.body(int(entries["body"][at])))
        return begin

    def _delete_settled(self) -> None:
        messages, table = self._state.messages, self._state.table
        bases, state = _bases(messages), messages.native.state()
        self._lag_max = self._bytes_max * (state.log_end_offset - bases[0]) // max(state.log_bytes, 1)
        frontier = int(table.words[FRONTIER])
        if len(bases) < 2 or frontier < bases[1]:
            table.words[LOOKED] = frontier
            return
        with table.held:
            frontier = int(table.words[FRONTIER])
            pinning = self._pinning()
            low = min(frontier, int(pinning.min()) if len(pinning) else frontier)
            if low < bases[1] and self._carry_from(bases, frontier, pinning):
                pinning = self._pinning()
                low = min(frontier, int(pinning.min()) if len(pinning) else frontier)
        done = [base for base in bases if base <= low]
        if done and done[-1] > bases[0]:
            self._state.journal.flush()  # of messages that were carried over, nothing else is left
            self._log.admin.delete_records({messages.tp: done[-1]})
        table.words[LOOKED] = frontier

    def _pinning(self) -> Array:
        """Offsets of messages that are needed where they were put.  Caller holds the table."""
        entries = self._state.table.entries
        offsets: Array = entries["offset"][(entries["offset"] >= 0) & (entries["body"] < 0)]
        return offsets

    def _carry_from(self, bases: list[int], frontier: int, pinning: Array) -> bool:
        """Few messages keep the oldest segment from being deleted: carry them over.  Caller holds the table."""
        first, second = bases[0], bases[1]
        if frontier < second + (second - first) // 2:
            return False  # they may yet be settled
        offsets = np.sort(pinning[pinning < second])
        if len(offsets) > min(CARRIED_MAX, (second - first) // 8):
            return False
        table, journal = self._state.table, self._state.journal
        slots = table.live()
        slots = slots[np.isin(table.entries["offset"][slots], offsets)]
        reader = type(self._state.window)(self._state.messages)
        found = reader.raw(offsets)
        for slot, record in zip(slots.tolist(), found, strict=True):
            if record is None:
                continue
            size = (
                len(record.key or b"")
                + len(record.value or b"")
                + sum(len(name) * 4 + len(data or b"") + 20 for name, data in record.headers)
            )
            if size + ROOM_BYTES > journal.bytes_max:
                return False
            table.entries["body"][slot] = journal.carry(record)
        return True


def _bases(partition: Partition) -> list[int]:
    """Base offsets of the partition's segments.  Raises UnknownTopicOrPartitionError while it is being deleted."""
    directory = Path(partition.native.directory)
    bases = sorted(int(path.stem) for path in directory.glob("*.log") if path.stem.isdigit())
    if not bases:
        raise UnknownTopicOrPartitionError(f"{directory.name} has no segments any more")
    return bases
