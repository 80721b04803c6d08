"""The engine's walk over a partition's .log files, typed: see plog_verify in csrc/pylog.h."""

import os
from typing import Any, NamedTuple

import numpy as np

from pylog import _native
from pylog._native import ffi, lib

PAUSE, END = lib.PLOG_VERIFY_PAUSE, lib.PLOG_VERIFY_END
COMPRESSED, UNDECODABLE, DAMAGE = (
    lib.PLOG_VERIFY_COMPRESSED,
    lib.PLOG_VERIFY_UNDECODABLE,
    lib.PLOG_VERIFY_DAMAGE,
)
NOTHING_THERE = -(1 << 63)

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Places:
    """What indexes point at: positions and offsets, rising, and what the log has there; NOTHING_THERE: nothing."""

    def __init__(self, positions: Numbers, offsets: Numbers) -> None:
        self.positions, self.offsets = np.unique(positions), np.unique(offsets)
        self.offset_at_position = np.full(len(self.positions), NOTHING_THERE, np.int64)
        self.timestamp_at_offset = np.full(len(self.offsets), NOTHING_THERE, np.int64)

    def pointers(self) -> Any:
        """The arrays as a plog_verify_places; they must outlive its use."""

        def numbers(array: Numbers) -> Any:
            return ffi.from_buffer("int64_t[]", array)

        return ffi.new(
            "plog_verify_places *",
            (
                numbers(self.positions), numbers(self.offset_at_position), len(self.positions),
                numbers(self.offsets), numbers(self.timestamp_at_offset), len(self.offsets),
            ),
        )  # fmt: skip

    def offsets_at(self, positions: Numbers) -> Numbers:
        """Last offsets of the batches that begin at these positions."""
        return self.offset_at_position[np.searchsorted(self.positions, positions)]

    def timestamps_at(self, offsets: Numbers) -> Numbers:
        """Largest timestamps of the batches that end with these offsets."""
        return self.timestamp_at_offset[np.searchsorted(self.offsets, offsets)]


class Aborted(NamedTuple):
    """An aborted transaction, as a .txnindex entry has it."""

    producer_id: int
    first_offset: int
    last_offset: int
    stable_offset: int


class Walk:
    """A walk over one partition's segments, in their order.  One thread at a time; the GIL is free while it goes."""

    def __init__(self, directory: str, *, dense: bool, snapshot: bytes) -> None:
        out = ffi.new("plog_verify **")
        _native.call(lib.plog_verify_new, os.fsencode(directory), dense, snapshot, len(snapshot), out)
        self._walk = ffi.gc(out[0], lib.plog_verify_free)
        self._places: Any = None
        self._seen_aborted = 0

    def begin(self, base_offset: int, size: int, limit_offset: int, places: Places) -> None:
        """Go on with the first `size` bytes of a segment, whose offsets stay below `limit_offset`."""
        self._places = (places, places.pointers())
        _native.call(lib.plog_verify_segment, self._walk, base_offset, size, limit_offset, self._places[1])

    def next(self) -> Any:
        """The next plog_verify_step."""
        step = ffi.new("plog_verify_step *")
        _native.call(lib.plog_verify_next, self._walk, step)
        return step

    def new_aborted(self) -> list[Aborted]:
        """Transactions whose abort markers were met since the last call."""
        count = lib.plog_verify_aborted(self._walk, self._seen_aborted, 0, ffi.NULL)
        out = ffi.new("int64_t[]", 4 * max(count, 1))
        lib.plog_verify_aborted(self._walk, self._seen_aborted, count, out)
        self._seen_aborted += count
        return [Aborted(*out[4 * i : 4 * i + 4]) for i in range(count)]


def text(problem: Any) -> str:
    """What the engine says is wrong."""
    return str(ffi.string(problem).decode())
