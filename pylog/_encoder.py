"""Batches from columns: numpy arrays in, whole record batches out, one call of the engine for each."""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np

from ._native import BATCH_HEADER_BYTES, ffi, lib


class ColumnEncoder:
    """Encodes records given as columns into batches of at most bytes_max, one C call a batch.

    values, keys: (data uint8, starts int64, lengths int32 with -1 for null); timestamps: int64 ms, or one for all.
    """

    def __init__(
        self,
        bytes_max: int,
        values: tuple[Any, Any, Any],
        keys: tuple[Any, Any, Any] | None,
        timestamps: Any,
        timestamp: int,
    ) -> None:
        for name, column in (("values", values), ("keys", keys)):
            if column is not None:
                _check_column(name, column)
        self._bytes_max = bytes_max
        self._hold = (values, keys, timestamps)  # the arrays the pointers below point into
        self._timestamp = timestamp
        self.count = len(values[1])
        self._arguments = [
            *self._pointers(values),
            *(self._pointers(keys) if keys is not None else (ffi.NULL, ffi.NULL, ffi.NULL)),
            ffi.NULL if timestamps is None else ffi.cast("int64_t *", timestamps.ctypes.data),
        ]

    @staticmethod
    def _pointers(column: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        data, starts, lengths = column
        return (
            ffi.cast("uint8_t *", data.ctypes.data),
            ffi.cast("int64_t *", starts.ctypes.data),
            ffi.cast("int32_t *", lengths.ctypes.data),
        )

    def encode(self, start: int) -> tuple[Any, int]:
        """A batch (a writable buffer) of the records from `start` on, and how many it took.

        A record that is over bytes_max by itself goes alone into a batch of its own size.
        """
        out = ffi.new("int64_t *")
        bytes_max = self._bytes_max
        while True:
            batch = np.empty(bytes_max, np.uint8)
            taken = lib.plog_encode_columns(
                ffi.cast("uint8_t *", batch.ctypes.data),
                bytes_max,
                start,
                self.count if bytes_max == self._bytes_max else start + 1,
                *self._arguments,
                self._timestamp,
                out,
            )
            if taken:
                return batch[: out[0]], int(taken)
            bytes_max = self._record_bytes_max(start)

    def _record_bytes_max(self, at: int) -> int:
        values, keys, _ = self._hold
        key_bytes = int(keys[2][at]) if keys is not None else 0
        return BATCH_HEADER_BYTES + 64 + max(int(values[2][at]), 0) + max(key_bytes, 0)


def _check_column(name: str, column: tuple[Any, Any, Any]) -> None:
    """Refuse columns whose positions reach outside their data: C would read there."""
    data, starts, lengths = column
    if len(starts) != len(lengths):
        raise ValueError(f"{name}: {len(starts)} starts and {len(lengths)} lengths")
    filled = lengths > 0
    if not len(starts) or not filled.any():
        return
    if int(starts[filled].min()) < 0 or int((starts[filled] + lengths[filled]).max()) > len(data):
        raise ValueError(f"{name}: positions reach outside of the data's {len(data)} bytes")


def set_batch_length(batch: bytearray, codec: int) -> None:
    """Make a batch's header fit the compressed block that was put behind it."""
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    (attributes,) = struct.unpack_from(">h", batch, 21)
    struct.pack_into(">h", batch, 21, attributes | codec)


def now_ms() -> int:
    """The clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
