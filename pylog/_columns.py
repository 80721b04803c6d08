"""Records as columns: numpy arrays over the mapped segment, or over a block that was decompressed."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import _arrow, _native
from ._types import Array, Headers, TopicPartition


class BytesColumn:
    """A column of byte strings that are views into `data`.

    data: uint8, read-only, the mapped segment or a decompressed block; starts: int64 positions in it; lengths: int32,
    -1 for null.  Value i is data[starts[i] : starts[i] + lengths[i]].  Whatever is taken from it (an array, a
    memoryview) keeps the memory alive.
    """

    __slots__ = ("data", "lengths", "starts")

    data: Array
    starts: Array
    lengths: Array

    def __init__(self, data: Array, starts: Array, lengths: Array) -> None:
        self.data, self.starts, self.lengths = data, starts, lengths

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> memoryview | None:
        """Value i as a view, None for null; negative i counts from the end."""
        length = int(self.lengths[i])
        if length < 0:
            return None
        start = int(self.starts[i])
        return self.data.data[start : start + length]

    def __iter__(self) -> Iterator[memoryview | None]:
        data = self.data.data
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield None if length < 0 else data[start : start + length]

    def __repr__(self) -> str:
        return f"<BytesColumn of {len(self)}>"

    def tolist(self) -> list[bytes | None]:
        """All values as bytes objects: the fastest way to Python objects."""
        return _native.bytes_list(self.data, self.starts, self.lengths)

    def astype(self, dtype: Any) -> Array:
        """Fixed-width values as an array of `dtype` (structured dtypes too), copied.

        Raises ValueError at a null or at a value of another width.
        """
        dtype = np.dtype(dtype)
        wrong = np.flatnonzero(self.lengths != dtype.itemsize)
        if len(wrong):
            i = int(wrong[0])
            have = "null" if self.lengths[i] < 0 else f"{self.lengths[i]} bytes"
            raise ValueError(f"value {i} is {have}, {dtype} takes {dtype.itemsize} bytes")
        if not len(self) or dtype.itemsize == 0:
            return np.zeros(len(self), dtype)
        windows = np.lib.stride_tricks.sliding_window_view(self.data, dtype.itemsize)
        values: Array = np.ascontiguousarray(windows[self.starts]).view(dtype).reshape(len(self))
        return values


class Columns:
    """A run of records of one partition.

    offset, timestamp (ms): int64 arrays; key, value: BytesColumn.  pyarrow.record_batch(c) and polars.DataFrame(c)
    take it as it is.
    """

    __slots__ = ("_decoded", "key", "offset", "partition", "timestamp", "topic", "value")

    topic: str
    partition: int
    offset: Array
    timestamp: Array
    key: BytesColumn
    value: BytesColumn

    def __init__(self, tp: TopicPartition, decoded: _native.DecodedRecords) -> None:
        self.topic, self.partition = tp
        self.offset, self.timestamp = decoded.offset, decoded.timestamp
        self.key = BytesColumn(decoded.data, decoded.key_at, decoded.key_bytes)
        self.value = BytesColumn(decoded.data, decoded.value_at, decoded.value_bytes)
        self._decoded = decoded

    def __len__(self) -> int:
        return len(self.offset)

    def __repr__(self) -> str:
        span = f" {self.offset[0]}..{self.offset[-1]}" if len(self) else ""
        return f"<Columns {self.topic}-{self.partition}{span}, {len(self)} records>"

    def headers(self) -> list[Headers]:
        """Each record's headers, decoded now."""
        return list(_native.headers_list(self._decoded.data, self._decoded.headers_at))

    def cut(self, start: int, stop: int) -> "Columns":
        """Records [start, stop) as a view."""
        return Columns(TopicPartition(self.topic, self.partition), self._decoded.cut(start, stop))

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[object, object]:
        """Arrow's C data interface: struct of partition, offset, timestamp[ms, UTC], key, value (binary_view)."""
        return _arrow.columns_capsules(self)


class Scan:
    """A part of a topic as columns: iterate it, or hand it to Arrow (pa.table(scan), pl.DataFrame(scan)).

    Each use reads anew; the end stays where it was when the scan was made.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Columns]:
        chunks: Iterable[Columns] = self._chunks()
        return iter(chunks)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        """Arrow's C stream interface; a record batch for each Columns."""
        return _arrow.stream_capsule(iter(self))
