"""Columns and scans for Arrow consumers, through the Arrow PyCapsule interface, without pyarrow.

    field      type                format    of the record
    partition  int32               i
    offset     int64               l
    timestamp  timestamp[ms, UTC]  tsm:UTC
    key        binary_view         vz        null: the record has none
    value      binary_view         vz        null: a tombstone

One table row is one record; a batch is a struct array of these five. A binary view is 16 bytes: i32 length, then the
bytes themselves, padded with zeros, where they are 12 at most; else their first four, i32 number of the buffer and i32
offset in it. The buffers are the column's own data, uncopied: the mapped segment, or a decompressed block. They live
until the consumer drops them.

requested_schema may be ignored as the protocol has it; consumers cast.
"""

import ctypes
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pylog._arrow_abi import (
    ARRAY_CAPSULE,
    ERROR_FUNCTION,
    NULLABLE,
    SCHEMA_CAPSULE,
    STREAM_CAPSULE,
    STREAM_FUNCTION,
    ArrowArray,
    ArrowArrayStream,
    ArrowSchema,
)
from pylog._arrow_import import from_arrow, timestamps_from_arrow
from pylog._native import arrow_capsule, arrow_hold, arrow_releases

__all__ = ["columns_capsules", "from_arrow", "stream_capsule", "timestamps_from_arrow"]

FIELDS: Final = (
    (b"i", b"partition", 0),
    (b"l", b"offset", 0),
    (b"tsm:UTC", b"timestamp", 0),
    (b"vz", b"key", NULLABLE),
    (b"vz", b"value", NULLABLE),
)

VIEW_BYTES = 16
VIEW_INLINE_BYTES_MAX = 12
VIEW_OFFSET_BITS = 31  # a view's offset is a signed 32-bit number

# Row n keeps the first n bytes of an inline value and clears the rest.
KEPT_BYTES: Final = np.tri(VIEW_INLINE_BYTES_MAX + 1, VIEW_INLINE_BYTES_MAX, -1, np.uint8) * np.uint8(0xFF)

RELEASE_SCHEMA, RELEASE_ARRAY, RELEASE_STREAM = arrow_releases()
Array = npt.NDArray[Any]


class BytesColumnLike(Protocol):
    """What is read of a BytesColumn."""

    @property
    def data(self) -> Array:
        """uint8: what the values are slices of."""

    @property
    def starts(self) -> Array:
        """int64: where each value begins in data."""

    @property
    def lengths(self) -> Array:
        """int32: the bytes of each value, -1 for null."""


class ColumnsLike(Protocol):
    """What is read of a Columns."""

    @property
    def partition(self) -> int:
        """The one partition of all records."""

    @property
    def offset(self) -> Array:
        """int64."""

    @property
    def timestamp(self) -> Array:
        """int64, ms since the epoch."""

    @property
    def key(self) -> BytesColumnLike:
        """As long as offset."""

    @property
    def value(self) -> BytesColumnLike:
        """As long as offset."""


def columns_capsules(columns: ColumnsLike) -> tuple[object, object]:
    """The schema and array capsules that `__arrow_c_array__` returns, over the columns' own memory."""
    schema, array = _schema(), _struct_array(columns)
    return (
        arrow_capsule(SCHEMA_CAPSULE.decode(), ctypes.addressof(schema), schema),
        arrow_capsule(ARRAY_CAPSULE.decode(), ctypes.addressof(array), array),
    )


def stream_capsule(batches: Iterable[ColumnsLike]) -> object:
    """The capsule that `__arrow_c_stream__` returns; batches are iterated once, as the consumer asks for them.

    An exception of the iteration ends the stream; the consumer raises its own with the text of it. The iterator is
    dropped at the end, at an error, or when the consumer lets go of the stream.
    """
    stream = ArrowArrayStream(
        *(ctypes.cast(callback, ctypes.c_void_p) for callback in STREAM_CALLBACKS),
        RELEASE_STREAM,
        arrow_hold(_Stream(batches)),
    )
    return arrow_capsule(STREAM_CAPSULE.decode(), ctypes.addressof(stream), stream)


class _Stream:
    """The owner of a stream: its private_data."""

    def __init__(self, batches: Iterable[ColumnsLike]) -> None:
        self.batches: Iterator[ColumnsLike] | None = iter(batches)
        self.error_text: ctypes.Array[ctypes.c_char] | None = None

    @staticmethod
    def at(stream_address: int) -> "_Stream":
        address = ArrowArrayStream.from_address(stream_address).private_data
        owner: _Stream = ctypes.cast(address, ctypes.py_object).value
        return owner

    def failed(self, error: BaseException) -> int:
        self.batches = None
        text = f"{type(error).__name__}: {error}".replace("\0", "\\0")
        self.error_text = ctypes.create_string_buffer(text.encode(errors="backslashreplace"))
        return errno.EIO


def _get_schema(_stream_address: int, out_address: int) -> int:
    ctypes.memmove(out_address, ctypes.byref(_schema()), ctypes.sizeof(ArrowSchema))
    return 0


def _get_next(stream_address: int, out_address: int) -> int:
    stream = _Stream.at(stream_address)
    try:
        columns = next(stream.batches, None) if stream.batches is not None else None
        if columns is None:
            stream.batches = None
            array = ArrowArray()  # released: the end
        else:
            array = _struct_array(columns)
    except BaseException as error:  # ctypes would print and forget it
        return stream.failed(error)
    ctypes.memmove(out_address, ctypes.byref(array), ctypes.sizeof(ArrowArray))
    return 0


def _get_last_error(stream_address: int) -> int | None:
    text = _Stream.at(stream_address).error_text
    return None if text is None else ctypes.addressof(text)


# Made once and never freed: a stream may outlive whoever made it.
STREAM_CALLBACKS: Final = (STREAM_FUNCTION(_get_schema), STREAM_FUNCTION(_get_next), ERROR_FUNCTION(_get_last_error))


def _schema() -> ArrowSchema:
    children = [_schema_node(*field) for field in FIELDS]
    return _schema_node(b"+s", b"", 0, children)


def _schema_node(type_format: bytes, name: bytes, flags: int, children: Sequence[ArrowSchema] = ()) -> ArrowSchema:
    pointers = _pointers([ctypes.addressof(child) for child in children])
    owner = (type_format, name, children, pointers)
    return ArrowSchema(type_format, name, None, flags, len(children), pointers, None, RELEASE_SCHEMA, arrow_hold(owner))


class _Buffers(NamedTuple):
    """What an array node needs, made before any node holds a reference that only a consumer's release gives back."""

    null_count: int
    buffers: tuple[Array | None, ...]


def _struct_array(columns: ColumnsLike) -> ArrowArray:
    row_count = len(columns.offset)
    fields = [
        _Buffers(0, (None, np.full(row_count, columns.partition, np.int32))),
        _Buffers(0, (None, np.require(columns.offset, np.int64, ["C", "A"]))),
        _Buffers(0, (None, np.require(columns.timestamp, np.int64, ["C", "A"]))),
        _binary_view(columns.key),
        _binary_view(columns.value),
    ]
    children = [_array_node(row_count, field) for field in fields]
    return _array_node(row_count, _Buffers(0, (None,)), children)


def _array_node(row_count: int, field: _Buffers, children: Sequence[ArrowArray] = ()) -> ArrowArray:
    buffers = _pointers([None if buffer is None else buffer.ctypes.data for buffer in field.buffers])
    pointers = _pointers([ctypes.addressof(child) for child in children])
    owner = (field, buffers, children, pointers)
    return ArrowArray(
        row_count,
        field.null_count,
        0,
        len(field.buffers),
        len(children),
        buffers,
        pointers,
        None,
        RELEASE_ARRAY,
        arrow_hold(owner),
    )


def _pointers(addresses: Sequence[int | None]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(addresses))(*addresses)


def _binary_view(column: BytesColumnLike) -> _Buffers:
    """Validity, views, the data as variadic buffers, and the byte counts of these."""
    lengths = column.lengths
    is_valid = lengths >= 0
    null_count = len(lengths) - int(np.count_nonzero(is_valid))
    validity = np.packbits(is_valid, bitorder="little") if null_count else None

    views = np.zeros((len(lengths), VIEW_BYTES // 4), np.int32)
    views[:, 0] = np.maximum(lengths, 0) if null_count else lengths
    is_long = lengths > VIEW_INLINE_BYTES_MAX
    long_count = int(np.count_nonzero(is_long))
    variadic: list[Array] = []
    if long_count + null_count < len(lengths):
        _fill_short(views, column, ~is_long if long_count else slice(None))
    if long_count:
        variadic = _fill_long(views, column, is_long if long_count < len(lengths) else slice(None))
    sizes = np.array([len(buffer) for buffer in variadic], np.int64)
    return _Buffers(null_count, (validity, views, *variadic, sizes))


def _fill_short(views: Array, column: BytesColumnLike, rows: Array | slice) -> None:
    lengths = np.maximum(column.lengths[rows], 0)
    starts = np.where(lengths > 0, column.starts[rows], 0)
    _check_inside(column, starts, starts + lengths)
    heads = _heads(column.data, starts, VIEW_INLINE_BYTES_MAX)
    heads &= KEPT_BYTES[lengths]
    views.view(np.uint8)[rows, VIEW_BYTES - VIEW_INLINE_BYTES_MAX :] = heads


def _fill_long(views: Array, column: BytesColumnLike, rows: Array | slice) -> list[Array]:
    starts = column.starts[rows]
    ends = starts + column.lengths[rows]
    _check_inside(column, starts, ends)
    first = int(starts.min())
    offsets = starts - first
    buffer_numbers = offsets >> VIEW_OFFSET_BITS
    views.view(np.uint8)[rows, 4:8] = _heads(column.data, starts, 4)
    views[rows, 2] = buffer_numbers
    views[rows, 3] = offsets & ((1 << VIEW_OFFSET_BITS) - 1)
    buffer_count = int(buffer_numbers.max()) + 1
    if buffer_count == 1:
        return [column.data[first : int(ends.max())]]
    # A value may pass the point where the next buffer begins: buffers overlap rather than cut it.
    ends_max = np.zeros(buffer_count, np.int64)
    np.maximum.at(ends_max, buffer_numbers, ends)
    return [
        column.data[first + (number << VIEW_OFFSET_BITS) : max(int(end), first + (number << VIEW_OFFSET_BITS))]
        for number, end in enumerate(ends_max)
    ]


def _check_inside(column: BytesColumnLike, starts: Array, ends: Array) -> None:
    """Consumers trust views: one outside the data would have them read foreign memory."""
    if int(starts.min()) < 0 or int(ends.max()) > len(column.data):
        raise IndexError(f"column reaches outside its data of {len(column.data)} bytes")


def _heads(data: Array, starts: Array, head_bytes: int) -> Array:
    """The first bytes from each start, zeros behind the end of data; a row each."""
    last = len(data) - head_bytes
    if last >= 0 and int(starts.max()) <= last:
        heads = _windows(data, head_bytes)[starts]
    else:
        is_near_end = starts > last
        tail_at = max(last, 0)
        tail = np.concatenate((data[tail_at:], np.zeros(head_bytes, np.uint8)))
        heads = np.empty(len(starts), f"V{head_bytes}")
        heads[is_near_end] = _windows(tail, head_bytes)[starts[is_near_end] - tail_at]
        if last >= 0:
            heads[~is_near_end] = _windows(data, head_bytes)[starts[~is_near_end]]
    return heads.view(np.uint8).reshape(len(starts), head_bytes)


def _windows(data: Array, window_bytes: int) -> Array:
    """Every window of so many bytes, as one item: indexing it copies whole windows."""
    return np.ndarray((len(data) - window_bytes + 1,), f"V{window_bytes}", buffer=data, strides=(1,))
