"""Columns of Arrow producers: every type of bytes, text and time is read as it is, and broken ones are refused."""

import ctypes
import gc
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog._arrow import from_arrow, timestamps_from_arrow
from pylog._arrow_abi import (
    ERROR_FUNCTION,
    RELEASE_FUNCTION,
    STREAM_CAPSULE,
    STREAM_FUNCTION,
    ArrowArray,
    ArrowArrayStream,
    ArrowSchema,
    capsule_address,
)

pa = pytest.importorskip("pyarrow")

VALUES = [b"", None, b"a", b"b" * 11, b"c" * 12, b"d" * 13, b"\x00" * 40, None, b"e" * 5000, b"", b"tail"]
FIELDS = st.lists(st.none() | st.binary(max_size=30) | st.binary(min_size=12, max_size=14), max_size=40)


# ---- import of bytes


def fields_of(arrays):
    data, starts, lengths = arrays
    assert (data.dtype, starts.dtype, lengths.dtype) == (np.uint8, np.int64, np.int32)
    assert len(starts) == len(lengths)
    return [
        None if length == -1 else data[start : start + length].tobytes()
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]


BYTES_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]
WITHOUT_NULLS = [value for value in VALUES if value is not None]
LONG = [b"long value %05d" % i for i in range(20)]


@pytest.mark.parametrize("arrow_type", BYTES_TYPES + TEXT_TYPES, ids=str)
@pytest.mark.parametrize(
    "values", [VALUES, WITHOUT_NULLS, LONG, [*LONG, None], [None] * 3, [b""] * 3, []], ids=lambda v: repr(v)[:20]
)
def test_columns_of_bytes_and_text_are_read_at_every_slice(arrow_type, values):
    array = pa.array(values, pa.binary()).cast(arrow_type)
    assert fields_of(from_arrow(array)) == values
    for start in range(len(values) + 1):
        for count in (0, 1, 3, len(values)):
            assert fields_of(from_arrow(array.slice(start, count))) == values[start : start + count]


@given(values=FIELDS, arrow_type=st.sampled_from(BYTES_TYPES), chunk_sizes=st.lists(st.integers(0, 9), max_size=5))
def test_any_column_is_read_in_any_chunks(values, arrow_type, chunk_sizes):
    array = pa.array(values, pa.binary()).cast(arrow_type)
    at, chunks = 0, []
    for size in chunk_sizes:
        chunks.append(array.slice(at, size))
        at = min(at + size, len(array))
    chunks.append(array.slice(at))
    assert fields_of(from_arrow(pa.chunked_array(chunks))) == values


def test_chunks_without_rows_or_no_chunks_at_all_are_read():
    assert fields_of(from_arrow(pa.chunked_array([], pa.binary()))) == []
    assert fields_of(from_arrow(pa.chunked_array([[], [b"x"], []], pa.binary_view()))) == [b"x"]


def test_views_into_several_buffers_are_read():
    one = pa.array([b"first buffer, long", b"short"], pa.binary_view())
    two = pa.array([b"second buffer, long", None, b"also in the second"], pa.binary_view())
    both = pa.concat_arrays([one, two])
    assert len(both.buffers()) > 3
    assert fields_of(from_arrow(both)) == [*one.to_pylist(), *two.to_pylist()]
    assert fields_of(from_arrow(both.slice(2, 2))) == [b"second buffer, long", None]


@pytest.mark.parametrize("width", [1, 7, 12, 16])
def test_columns_of_fixed_width_are_read(width):
    values = [None if i == 2 else bytes([i]) * width for i in range(6)]
    array = pa.array(values, pa.binary(width))
    assert fields_of(from_arrow(array)) == values
    assert fields_of(from_arrow(array.slice(1, 3))) == values[1:4]


def test_a_column_of_nulls_is_read():
    assert fields_of(from_arrow(pa.nulls(3))) == [None] * 3


@pytest.mark.parametrize("to_text", [False, True])
def test_polars_series_are_read(to_text):
    pl = pytest.importorskip("polars")
    values = [None if v is None else v.decode() for v in VALUES] if to_text else VALUES
    series = pl.Series(values)
    assert fields_of(from_arrow(series)) == VALUES
    assert fields_of(from_arrow(series.slice(4, 5))) == VALUES[4:9]
    assert fields_of(from_arrow(pl.concat([series, series[2:5]], rechunk=False))) == VALUES + VALUES[2:5]
    assert fields_of(from_arrow(series.filter(series.is_not_null()))) == WITHOUT_NULLS


@pytest.mark.parametrize("arrow_type", [*BYTES_TYPES, pa.binary(16)], ids=str)
def test_one_chunk_is_not_copied_and_stays_alive(arrow_type):
    array = pa.array([b"exactly 16 bytes"] * 1000, arrow_type)
    gc.collect()
    before = pa.total_allocated_bytes()
    buffer = array.buffers()[1 if arrow_type == pa.binary(16) else 2]
    arrays = from_arrow(array)
    assert arrays.data.ctypes.data == buffer.address
    del array, buffer
    gc.collect()
    assert pa.total_allocated_bytes() >= before
    assert fields_of(arrays) == [b"exactly 16 bytes"] * 1000
    del arrays
    gc.collect()
    assert pa.total_allocated_bytes() <= before - 16_000


def test_foreign_memory_is_not_writable():
    assert not from_arrow(pa.array([b"a shared constant"])).data.flags.writeable


def test_nothing_of_a_producer_is_kept_after_an_import_that_copies():
    gc.collect()
    before = pa.total_allocated_bytes()
    arrays = from_arrow(pa.chunked_array([[b"x" * 1000], [b"y" * 1000]]))
    gc.collect()
    assert pa.total_allocated_bytes() == before
    assert fields_of(arrays) == [b"x" * 1000, b"y" * 1000]


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([1]), "Int64Array of Arrow format 'l'"),
        (pa.array([[b"x"]]), r"'\+l'"),
        (pa.record_batch({"a": [b"x"]}), r"RecordBatch of Arrow format '\+s'"),
        (pa.table({"a": [b"x"]}), r"Table of Arrow format '\+s'"),
        (pa.array(["a"]).dictionary_encode(), "with a dictionary"),
        (pa.array([1.5]), "'g'"),
        ([b"x"], "list has neither __arrow_c_array__ nor __arrow_c_stream__"),
    ],
    ids=str,
)
def test_other_types_are_refused_by_name(column, found):
    gc.collect()
    before = pa.total_allocated_bytes()
    with pytest.raises(TypeError, match=found):
        from_arrow(column)
    assert pa.total_allocated_bytes() == before


class FailingStream:
    """A stream of binary values that fails at its second array."""

    def __init__(self):
        self.calls, self.released = 0, []
        source = pa.chunked_array([[b"x"]]).__arrow_c_stream__()
        inner = ArrowArrayStream.from_address(capsule_address(source, b"arrow_array_stream"))
        inner_address = ctypes.addressof(inner)
        text = ctypes.create_string_buffer(b"the producer's reason")

        def get_next(_stream, out):
            self.calls += 1
            return 5 if self.calls == 2 else STREAM_FUNCTION(inner.get_next)(inner_address, out)

        def on_release(stream):
            self.released.append(True)
            ArrowArrayStream.from_address(stream).release = None

        self.callbacks = (
            STREAM_FUNCTION(lambda _stream, out: STREAM_FUNCTION(inner.get_schema)(inner_address, out)),
            STREAM_FUNCTION(get_next),
            ERROR_FUNCTION(lambda _stream: ctypes.addressof(text)),
            RELEASE_FUNCTION(on_release),
        )
        self.stream = ArrowArrayStream(*(ctypes.cast(callback, ctypes.c_void_p) for callback in self.callbacks), None)
        self.kept = (source, text)

    def __arrow_c_stream__(self, requested_schema=None):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.stream), STREAM_CAPSULE, None)


def test_an_error_of_a_producers_stream_is_an_os_error_with_its_text_and_releases_it():
    source = FailingStream()
    with pytest.raises(OSError, match="Arrow stream: the producer's reason") as raised:
        from_arrow(source)
    assert raised.value.errno == 5
    assert source.released == [True]


class Forged:
    """An array whose struct is changed on its way."""

    def __init__(self, array, change):
        self.array, self.change = array, change

    def __arrow_c_array__(self, requested_schema=None):
        schema, array = self.array.__arrow_c_array__()
        self.change(
            ArrowSchema.from_address(capsule_address(schema, b"arrow_schema")),
            ArrowArray.from_address(capsule_address(array, b"arrow_array")),
        )
        return schema, array


def poke(values, arrow_type, *, at, to):
    """An array whose offsets or views have one int32 overwritten, once pyarrow has looked at them."""
    array = pa.array(values, arrow_type)
    memories = [None if buffer is None else bytearray(buffer.to_pybytes()) for buffer in array.buffers()]
    buffers = [None if memory is None else pa.py_buffer(memory) for memory in memories]
    poked = pa.Array.from_buffers(array.type, len(array), buffers)
    np.frombuffer(memories[1], np.int32)[at] = to
    return poked


BROKEN = {
    "falling offsets": poke([b"abc", b"def"], pa.binary(), at=1, to=7),
    "a negative offset": poke([b"abc", b"def"], pa.binary(), at=0, to=-1),
    "a view of an unknown buffer": poke([b"x" * 20, b"y"], pa.binary_view(), at=2, to=1),
    "a view of a negative buffer": poke([b"x" * 20, b"y"], pa.binary_view(), at=2, to=-1),
    "a view behind its buffer": poke([b"x" * 20, b"y"], pa.binary_view(), at=3, to=1),
    "a view before its buffer": poke([b"x" * 20, b"y"], pa.binary_view(), at=3, to=-1),
    "a view longer than its buffer": poke([b"x" * 20, b"y"], pa.binary_view(), at=0, to=21),
    "a view of negative length": poke([b"x" * 20, b"y"], pa.binary_view(), at=0, to=-5),
    "a negative length": Forged(pa.array([b"x"]), lambda _, a: setattr(a, "length", -1)),
    "a negative start": Forged(pa.array([b"x"]), lambda _, a: setattr(a, "offset", -1)),
    "too few buffers": Forged(pa.array([b"x"]), lambda _, a: setattr(a, "n_buffers", 2)),
    "too few buffers for views": Forged(pa.array([b"x"], pa.binary_view()), lambda _, a: setattr(a, "n_buffers", 2)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_buffers_that_contradict_themselves_are_refused(broken):
    with pytest.raises(ValueError, match="Arrow array"):
        from_arrow(BROKEN[broken])


def test_a_capsule_of_another_kind_is_refused():
    class Swapped:
        def __arrow_c_array__(self, requested_schema=None):
            return pa.array([b"x"]).__arrow_c_array__()[::-1]

    with pytest.raises(ValueError, match="PyCapsule"):
        from_arrow(Swapped())


# ---- import of timestamps


@pytest.mark.parametrize(
    ("arrow_type", "per_ms"),
    [
        (pa.int64(), 1),
        (pa.timestamp("ms"), 1),
        (pa.timestamp("us", "UTC"), 1000),
        (pa.timestamp("ns", "Europe/Paris"), 1_000_000),
    ],
    ids=str,
)
def test_timestamps_of_any_unit_become_milliseconds(arrow_type, per_ms):
    ms = [1_760_000_000_123, 0, -1, -1500]
    array = pa.array([value * per_ms for value in ms], pa.int64()).cast(arrow_type)
    for column in (array, pa.chunked_array([array.slice(0, 2), array.slice(2)])):
        found = timestamps_from_arrow(column)
        assert found.dtype == np.int64
        assert found.tolist() == ms
    assert timestamps_from_arrow(array.slice(1, 2)).tolist() == ms[1:3]


def test_finer_timestamps_are_rounded_down():
    assert timestamps_from_arrow(pa.array([1999, -1], pa.timestamp("us"))).tolist() == [1, -1]


def test_seconds_become_milliseconds_or_are_refused():
    assert timestamps_from_arrow(pa.array([1_760_000_000, -1], pa.timestamp("s"))).tolist() == [
        1_760_000_000_000,
        -1000,
    ]
    for edge in ((1 << 63) - 1, -(1 << 63), (1 << 63) // 1000 + 1):
        with pytest.raises(ValueError, match="out of the range"):
            timestamps_from_arrow(pa.array([0, edge], pa.timestamp("s")))


def test_polars_datetimes_become_milliseconds():
    pl = pytest.importorskip("polars")
    for unit in ("ms", "us", "ns"):
        series = pl.Series([datetime(2026, 1, 1, tzinfo=UTC)], dtype=pl.Datetime(unit, "UTC"))
        assert timestamps_from_arrow(series).tolist() == [1_767_225_600_000]


def test_no_timestamps_are_an_empty_array():
    assert timestamps_from_arrow(pa.chunked_array([], pa.timestamp("us"))).tolist() == []
    assert timestamps_from_arrow(pa.array([], pa.int64())).dtype == np.int64


def test_a_null_timestamp_is_refused_by_its_row():
    with pytest.raises(ValueError, match="row 2 is null"):
        timestamps_from_arrow(pa.array([1, 2, None, 3]))


@pytest.mark.parametrize(
    "column", [pa.array([1], pa.int32()), pa.array(["2026-01-01"]), pa.array([1], pa.date32())], ids=str
)
def test_timestamps_of_other_types_are_refused(column):
    with pytest.raises(TypeError, match="is not one of timestamps or int64"):
        timestamps_from_arrow(column)
