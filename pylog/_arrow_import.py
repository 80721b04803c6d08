"""Columns of Arrow producers (pyarrow, polars, ...) as numpy arrays, through the Arrow PyCapsule interface.

    read as bytes       format                     buffers behind the validity bitmap
    binary, string      z, u                       i32 offsets, data
    large_*             Z, U                       i64 offsets, data
    *_view              vz, vu                     16-byte views, data..., i64 sizes of the data buffers
    fixed_size_binary   w:<bytes>                  data
    null                n                          (not even the bitmap)
    read as ms          format
    int64               l
    timestamp           tss: tsm: tsu: tsn:        UTC since the epoch, whatever zone follows the colon

Data is not copied where a column is one chunk whose values lie in one buffer. What the buffers say is checked, as far
as their sizes are known, before anything is read by it.
"""

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pylog._arrow_abi import (
    ARRAY_CAPSULE,
    ERROR_FUNCTION,
    SCHEMA_CAPSULE,
    STREAM_CAPSULE,
    STREAM_FUNCTION,
    ArrowArray,
    ArrowArrayStream,
    ArrowSchema,
    capsule_address,
    release,
)

Array = npt.NDArray[Any]

VIEW_BYTES = 16
VIEW_INLINE_BYTES_MAX = 12
VALUE_BYTES_MAX = (1 << 31) - 1

OFFSET_TYPES = {"z": np.int32, "u": np.int32, "Z": np.int64, "U": np.int64}
BUFFER_COUNTS = {"z": 3, "u": 3, "Z": 3, "U": 3, "v": 3, "w": 2, "n": 0, "l": 2, "t": 2}  # by a format's first letter
UNITS_PER_MS = {"tsm:": 1, "tsu:": 1000, "tsn:": 1_000_000}


class BytesArrays(NamedTuple):
    """Bytes i are data[starts[i]:starts[i] + lengths[i]]; a null's length is -1."""

    data: Array
    starts: Array
    lengths: Array


def from_arrow(column: object) -> BytesArrays:
    """The values of a column of bytes or text: data (uint8, read-only), starts (int64) and lengths (int32, -1 null).

    data keeps the producer's memory alive where it is a view of it.

    Raises:
        TypeError: the object has no Arrow interface, or its type is not one of bytes or text.
        ValueError: the producer's buffers contradict themselves, or a value is longer than 2^31-1 bytes.
    """
    chunks = [_bytes_of(chunk) for chunk in _chunks(column, "bytes or text", _is_bytes)]
    if len(chunks) == 1:
        return chunks[0]
    shifts = np.cumsum([0, *(len(chunk.data) for chunk in chunks)])
    return BytesArrays(
        np.concatenate([_empty(np.uint8), *(chunk.data for chunk in chunks)]),
        np.concatenate([_empty(np.int64), *(chunk.starts + at for chunk, at in zip(chunks, shifts, strict=False))]),
        np.concatenate([_empty(np.int32), *(chunk.lengths for chunk in chunks)]),
    )


def timestamps_from_arrow(column: object) -> Array:
    """The values of a column of timestamps, or of int64 milliseconds, as int64 milliseconds since the epoch.

    Finer units are rounded down.

    Raises:
        TypeError: the object has no Arrow interface, or its type is neither timestamp nor int64.
        ValueError: a value is null, or out of the range of int64 milliseconds.
    """
    chunks = [_ms_of(chunk) for chunk in _chunks(column, "timestamps or int64", _is_timestamp)]
    return np.concatenate([_empty(np.int64), *chunks])


def _is_bytes(type_format: str) -> bool:
    return type_format in OFFSET_TYPES or type_format in ("vz", "vu", "n") or type_format.startswith("w:")


def _is_timestamp(type_format: str) -> bool:
    return type_format == "l" or type_format[:4] in ("tss:", *UNITS_PER_MS)


class _Chunk:
    """An array taken over from its producer; released when neither it nor a view of its buffers is left."""

    def __init__(self, type_format: str, struct: ArrowArray) -> None:
        self.format = type_format
        self._struct = struct

    def __del__(self) -> None:
        release(self._struct)

    def checked(self) -> "_Chunk":
        struct = self._struct
        needed = BUFFER_COUNTS[self.format[0]]
        if struct.n_buffers < needed:
            raise ValueError(f"Arrow array of format {self.format!r} has {struct.n_buffers} buffers, not {needed}")
        if struct.length < 0 or struct.offset < 0:
            raise ValueError(f"Arrow array of length {struct.length} at offset {struct.offset}")
        return self

    def __len__(self) -> int:
        return int(self._struct.length)

    @property
    def offset(self) -> int:
        return int(self._struct.offset)

    @property
    def buffer_count(self) -> int:
        return int(self._struct.n_buffers)

    def buffer(self, number: int, dtype: Any, count: int, skip: int = 0) -> Array:
        """Items skip to skip + count of a buffer, without a copy; they keep this chunk alive."""
        item = np.dtype(dtype)
        if count <= 0:
            return _empty(item)
        address = self._struct.buffers[number]
        if not address:
            raise ValueError(f"Arrow array of format {self.format!r} has no buffer {number} for {count} items")
        return np.asarray(_Memory(self, address + skip * item.itemsize, item, count))

    def is_valid(self) -> Array | None:
        """A bool per row, None where there are no nulls."""
        if self.format == "n":
            return np.zeros(len(self), np.bool_)
        if self._struct.null_count == 0 or not len(self) or not self._struct.buffers[0]:
            return None
        byte, bit = divmod(self.offset, 8)
        bits = self.buffer(0, np.uint8, (bit + len(self) + 7) // 8, skip=byte)
        return np.unpackbits(bits, bitorder="little", count=bit + len(self))[bit:].view(np.bool_)


class _Memory:
    """What numpy asks for an array over a chunk's memory; the array's base, so the chunk lives as long."""

    def __init__(self, chunk: _Chunk, address: int, item: np.dtype[Any], count: int) -> None:
        self._chunk = chunk
        self.__array_interface__ = {"version": 3, "data": (address, True), "typestr": item.str, "shape": (count,)}


def _empty(dtype: Any) -> Array:
    return np.empty(0, dtype)


def _chunks(column: object, wanted: str, is_wanted: Any) -> Iterator[_Chunk]:
    if hasattr(column, "__arrow_c_array__"):
        schema_capsule, array_capsule = column.__arrow_c_array__()
        schema = ArrowSchema.from_address(capsule_address(schema_capsule, SCHEMA_CAPSULE))
        source = ArrowArray.from_address(capsule_address(array_capsule, ARRAY_CAPSULE))
        type_format = _checked_format(schema, column, wanted, is_wanted)
        struct = ArrowArray.from_buffer_copy(source)
        source.release = None  # taken
        yield _Chunk(type_format, struct).checked()
    elif hasattr(column, "__arrow_c_stream__"):
        capsule = column.__arrow_c_stream__()
        stream = ArrowArrayStream.from_address(capsule_address(capsule, STREAM_CAPSULE))
        try:
            yield from _stream_chunks(stream, column, wanted, is_wanted)
        finally:
            release(stream)
            del capsule  # not before: the struct is its memory
    else:
        raise TypeError(f"{type(column).__name__} has neither __arrow_c_array__ nor __arrow_c_stream__")


def _stream_chunks(stream: ArrowArrayStream, column: object, wanted: str, is_wanted: Any) -> Iterator[_Chunk]:
    schema = ArrowSchema()
    _call_stream(stream, stream.get_schema, schema)
    try:
        type_format = _checked_format(schema, column, wanted, is_wanted)
    finally:
        release(schema)
    while True:
        struct = ArrowArray()
        _call_stream(stream, stream.get_next, struct)
        if not struct.release:
            return
        yield _Chunk(type_format, struct).checked()


def _call_stream(stream: ArrowArrayStream, function_address: int, out: ctypes.Structure) -> None:
    address = ctypes.addressof(stream)
    error_number = STREAM_FUNCTION(function_address)(address, ctypes.addressof(out))
    if error_number:
        text_address = ERROR_FUNCTION(stream.get_last_error)(address)
        text = ctypes.string_at(text_address).decode(errors="replace") if text_address else "no reason given"
        raise OSError(error_number, f"Arrow stream: {text}")


def _checked_format(schema: ArrowSchema, column: object, wanted: str, is_wanted: Any) -> str:
    type_format = schema.format.decode()
    if schema.dictionary or not is_wanted(type_format):
        dictionary = " with a dictionary" if schema.dictionary else ""
        raise TypeError(f"{type(column).__name__} of Arrow format {type_format!r}{dictionary} is not one of {wanted}")
    return str(type_format)


def _bytes_of(chunk: _Chunk) -> BytesArrays:
    if chunk.format in OFFSET_TYPES:
        arrays = _by_offsets(chunk)
    elif chunk.format == "n":
        arrays = BytesArrays(_empty(np.uint8), np.zeros(len(chunk), np.int64), np.zeros(len(chunk), np.int32))
    elif chunk.format in ("vz", "vu"):
        return _by_views(chunk)
    else:
        arrays = _by_width(chunk)
    is_valid = chunk.is_valid()
    if is_valid is not None:
        arrays.lengths[~is_valid] = -1
    return arrays


def _by_offsets(chunk: _Chunk) -> BytesArrays:
    if not len(chunk):  # producers may leave the offsets out
        return BytesArrays(_empty(np.uint8), _empty(np.int64), _empty(np.int32))
    offsets = chunk.buffer(1, OFFSET_TYPES[chunk.format], len(chunk) + 1, skip=chunk.offset).astype(np.int64)
    lengths = np.diff(offsets)
    if offsets[0] < 0 or int(lengths.min()) < 0:
        raise ValueError(f"Arrow array of format {chunk.format!r}: offsets fall")
    if int(lengths.max()) > VALUE_BYTES_MAX:
        raise ValueError(f"Arrow array: the value of row {int(lengths.argmax())} is {int(lengths.max())} bytes long")
    first, end = int(offsets[0]), int(offsets[-1])
    return BytesArrays(
        chunk.buffer(2, np.uint8, end - first, skip=first), offsets[:-1] - first, lengths.astype(np.int32)
    )


def _by_width(chunk: _Chunk) -> BytesArrays:
    width = int(chunk.format[2:])
    return BytesArrays(
        chunk.buffer(1, np.uint8, len(chunk) * width, skip=chunk.offset * width),
        np.arange(len(chunk), dtype=np.int64) * width,
        np.full(len(chunk), width, np.int32),
    )


def _by_views(chunk: _Chunk) -> BytesArrays:
    views = chunk.buffer(1, np.int32, 4 * len(chunk), skip=4 * chunk.offset).reshape(len(chunk), 4)
    lengths = views[:, 0].copy()
    is_valid = chunk.is_valid()
    if is_valid is not None:
        lengths[~is_valid] = 0
    if len(lengths) and int(lengths.min()) < 0:
        raise ValueError(f"Arrow array: the value of row {int(lengths.argmin())} is {int(lengths.min())} bytes long")
    is_long = lengths > VIEW_INLINE_BYTES_MAX
    starts = np.zeros(len(chunk), np.int64)
    pieces: list[Array] = []
    if (is_long | (lengths == 0)).all():
        starts[is_long], pieces = _long_starts(chunk, views[is_long], 0)
    else:
        # The views' own bytes come first; inline values are taken where they stand.
        starts[:] = np.arange(len(chunk)) * VIEW_BYTES + VIEW_BYTES - VIEW_INLINE_BYTES_MAX
        starts[is_long], pieces = _long_starts(chunk, views[is_long], views.nbytes)
        pieces.insert(0, views.reshape(-1).view(np.uint8))
    if is_valid is not None:
        lengths[~is_valid] = -1
    data = pieces[0] if len(pieces) == 1 else np.concatenate([_empty(np.uint8), *pieces])
    return BytesArrays(data, starts, lengths)


def _long_starts(chunk: _Chunk, views: Array, data_at: int) -> tuple[Array, list[Array]]:
    """Where values lie once the used span of each data buffer is put behind data_at bytes, and these spans."""
    if not len(views):
        return _empty(np.int64), []
    data_count = chunk.buffer_count - 3
    sizes = chunk.buffer(chunk.buffer_count - 1, np.int64, data_count)
    numbers, begins = views[:, 2], views[:, 3].astype(np.int64)
    ends = begins + views[:, 0]
    if int(numbers.min()) < 0 or int(numbers.max()) >= data_count:
        raise ValueError(f"Arrow array: a view names none of its {data_count} data buffers")
    is_outside = (begins < 0) | (ends > sizes[numbers])
    if is_outside.any():
        raise ValueError(f"Arrow array: a view reaches outside data buffer {int(numbers[is_outside.argmax()])}")
    if data_count == 1:  # the common case, at a tenth of the cost
        span_begins, span_ends = begins.min(keepdims=True), ends.max(keepdims=True)
    else:
        span_begins, span_ends = sizes.copy(), np.zeros(data_count, np.int64)
        np.minimum.at(span_begins, numbers, begins)
        np.maximum.at(span_ends, numbers, ends)
    span_sizes = np.maximum(span_ends - span_begins, 0)
    spans_at = data_at + np.cumsum(span_sizes) - span_sizes
    spans = [
        chunk.buffer(2 + number, np.uint8, int(size), skip=int(span_begins[number]))
        for number, size in enumerate(span_sizes)
        if size
    ]
    return spans_at[numbers] + begins - span_begins[numbers], spans


def _ms_of(chunk: _Chunk) -> Array:
    is_valid = chunk.is_valid()
    if is_valid is not None and not is_valid.all():
        raise ValueError(f"the timestamp of row {int((~is_valid).argmax())} is null")
    values = chunk.buffer(1, np.int64, len(chunk), skip=chunk.offset)
    if chunk.format[:4] == "tss:":
        if len(values) and max(abs(int(values.min())), abs(int(values.max()))) > (1 << 63) // 1000 - 1:
            raise ValueError("a timestamp in seconds is out of the range of int64 milliseconds")
        return values * 1000
    return values // UNITS_PER_MS.get(chunk.format[:4], 1)
