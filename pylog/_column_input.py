"""What send_columns takes: numpy and Arrow columns as (data uint8, starts int64, lengths int32 with -1 for null)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ._arrow import from_arrow, timestamps_from_arrow
from ._types import Array

ByteColumn: TypeAlias = tuple[Array, Array, Array]


def bytes_column(name: str, column: Any) -> ByteColumn:
    """The values of a column of fixed width, or of an Arrow column of binary or string type."""
    if hasattr(column, "__arrow_c_array__") or hasattr(column, "__arrow_c_stream__"):
        return from_arrow(column)
    if not isinstance(column, np.ndarray):
        raise TypeError(f"{name} must be a numpy array or an Arrow array, not {type(column).__name__}")
    if column.dtype.kind in "OU" or column.dtype.itemsize == 0:
        raise TypeError(
            f"{name}: numpy values of type {column.dtype} have no fixed bytes; use S, V or structured dtypes"
        )
    rows = np.ascontiguousarray(column)
    width = rows.nbytes // len(rows) if len(rows) else rows.dtype.itemsize
    data = rows.reshape(-1).view(np.uint8) if len(rows) else np.empty(0, np.uint8)
    starts = np.arange(len(rows), dtype=np.int64) * width
    return data, starts, np.full(len(rows), width, np.int32)


def timestamp_column(column: Any) -> Array:
    """Milliseconds since 1970, as int64, from integers, datetime64 or Arrow timestamps."""
    if hasattr(column, "__arrow_c_array__") or hasattr(column, "__arrow_c_stream__"):
        return np.ascontiguousarray(timestamps_from_arrow(column), np.int64)
    array = np.asarray(column)
    if array.dtype.kind == "M":
        array = array.astype("datetime64[ms]").view(np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(f"timestamps_ms must be integers or datetime64 in one dimension, not {array.dtype}")
    array = np.ascontiguousarray(array, np.int64)
    if len(array) and int(array.min()) < 0:
        raise ValueError(f"timestamps_ms: item {int(array.argmin())} is negative: {int(array.min())}")
    return array


def pick_column(column: ByteColumn, rows: Any) -> ByteColumn:
    """Some rows of a column: a slice or a list of indexes."""
    if isinstance(rows, slice) and rows == slice(None):
        return column
    return column[0], np.ascontiguousarray(column[1][rows]), np.ascontiguousarray(column[2][rows])
