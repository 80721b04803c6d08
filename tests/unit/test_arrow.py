"""Columns to Arrow consumers and back: pyarrow, polars and duckdb see the bytes that are there, and let go of them."""

import ctypes
import gc
import mmap
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog._arrow import columns_capsules, from_arrow, stream_capsule, timestamps_from_arrow
from pylog._arrow_abi import ArrowArray, ArrowSchema, capsule_address, release

pa = pytest.importorskip("pyarrow")

VALUES = [b"", None, b"a", b"b" * 11, b"c" * 12, b"d" * 13, b"\x00" * 40, None, b"e" * 5000, b"", b"tail"]
FIELDS = st.lists(st.none() | st.binary(max_size=30) | st.binary(min_size=12, max_size=14), max_size=40)


@dataclass
class BytesCarrier:
    """The attributes of a BytesColumn."""

    data: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


@dataclass
class ColumnsCarrier:
    """The attributes of a Columns, and the method that the interface wants."""

    topic: str
    partition: int
    offset: np.ndarray
    timestamp: np.ndarray
    key: BytesCarrier
    value: BytesCarrier

    def __len__(self):
        return len(self.offset)

    def __arrow_c_array__(self, requested_schema=None):
        return columns_capsules(self)


@dataclass
class ScanCarrier:
    """Something that gives batches anew at each use, as a Scan does."""

    batches: Callable[[], Iterable[ColumnsCarrier]]

    def __arrow_c_stream__(self, requested_schema=None):
        return stream_capsule(self.batches())


def carrier(fields, gap=b""):
    data = gap + gap.join(field or b"" for field in fields)
    sizes = np.array([len(field or b"") + len(gap) for field in fields], np.int64)
    starts = len(gap) + np.cumsum(sizes) - sizes
    lengths = np.array([-1 if field is None else len(field) for field in fields], np.int32)
    return BytesCarrier(np.frombuffer(data, np.uint8), starts, lengths)


def columns(values, keys=None, first=0, gap=b""):
    offset = np.arange(first, first + len(values), dtype=np.int64)
    keys = carrier(keys if keys is not None else [None] * len(values), gap)
    return ColumnsCarrier("t", 3, offset, 1_760_000_000_000 + offset, keys, carrier(values, gap))


def exported(values, **options):
    batch = pa.record_batch(columns(values, **options))
    batch.validate(full=True)
    return batch


# ---- export of one batch


def test_the_schema_is_the_documented_one():
    batch = exported([b"x"])
    assert batch.schema == pa.schema(
        [
            pa.field("partition", pa.int32(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("timestamp", pa.timestamp("ms", "UTC"), nullable=False),
            pa.field("key", pa.binary_view()),
            pa.field("value", pa.binary_view()),
        ]
    )


def test_a_batch_gives_its_rows_to_pyarrow():
    batch = exported(VALUES, keys=VALUES[::-1], first=41)
    assert batch["partition"].to_pylist() == [3] * len(VALUES)
    assert batch["offset"].to_pylist() == list(range(41, 41 + len(VALUES)))
    assert batch["timestamp"].cast("int64").to_pylist() == [1_760_000_000_041 + i for i in range(len(VALUES))]
    assert batch["key"].to_pylist() == VALUES[::-1]
    assert batch["value"].to_pylist() == VALUES


def test_a_batch_gives_its_rows_to_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(columns(VALUES, keys=VALUES[::-1], first=41))
    assert frame.schema == {
        "partition": pl.Int32,
        "offset": pl.Int64,
        "timestamp": pl.Datetime("ms", "UTC"),
        "key": pl.Binary,
        "value": pl.Binary,
    }
    assert frame["timestamp"][0] == datetime.fromtimestamp(1_760_000_000.041, UTC)
    assert frame.rows() == [
        (3, 41 + i, frame["timestamp"][i], VALUES[::-1][i], value) for i, value in enumerate(VALUES)
    ]


@given(values=FIELDS, gap=st.binary(max_size=20))
def test_any_batch_gives_its_rows(values, gap):
    assert exported(values, gap=gap)["value"].to_pylist() == values


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None],
        [None] * 9,
        [b""],
        [b"", b""],
        [b"x"],
        [b"x" * 12],
        [b"x" * 13],
        [b"x" * 13, None],
        [b"y" * 100] * 17,
        [None, b"", b"z" * 20],
    ],
    ids=repr,
)
def test_batches_of_one_kind_of_value_give_their_rows(values):
    assert exported(values)["value"].to_pylist() == values
    assert exported(values)["value"].null_count == values.count(None)


def test_short_values_at_the_very_end_of_the_data_are_not_read_past_it():
    # The last page before an unmapped one: a read past the end is a crash.
    size = mmap.PAGESIZE
    region = mmap.mmap(-1, size)
    region[-5:] = b"hello"
    data = np.frombuffer(region, np.uint8)
    value = BytesCarrier(data, np.array([size - 5, size - 1, size]), np.array([5, 1, 0], np.int32))
    batch = columns([None] * 3)
    batch.value = value
    assert pa.record_batch(batch)["value"].to_pylist() == [b"hello", b"o", b""]


def test_starts_of_nulls_are_not_looked_at():
    batch = columns([None, None, b"y" * 20])
    batch.value.starts[:2] = -(1 << 40), 1 << 40
    assert pa.record_batch(batch)["value"].to_pylist() == [None, None, b"y" * 20]


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (96, 5), (1 << 40, 1), (-20, 13), (90, 13)])
def test_a_value_outside_its_data_is_refused(start, length):
    batch = columns([b"x" * 100])
    batch.value.starts[0], batch.value.lengths[0] = start, length
    with pytest.raises(IndexError, match="outside its data of 100 bytes"):
        columns_capsules(batch)


def test_values_are_the_datas_own_memory():
    batch = columns([b"x" * 100, b"short", b"y" * 50])
    _validity, _views, data = pa.record_batch(batch)["value"].buffers()
    assert data.address == batch.value.data.ctypes.data
    assert data.size == 155


def test_only_the_span_in_use_is_handed_out():
    batch = columns([b"x" * 100, b"y" * 50, b"z" * 100])
    batch.value.lengths[[0, 2]] = -1
    (data,) = pa.record_batch(batch)["value"].buffers()[2:]
    assert (data.address, data.size) == (batch.value.data.ctypes.data + 100, 50)


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="needs 64-bit addresses")
def test_data_of_more_than_two_gibibytes_keeps_every_value(tmp_path):
    size = (5 << 30) + 100
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    data = np.memmap(path, np.uint8, "r+")
    marks = {7: b"first", 7 + (1 << 31) - 10: b"over the edge", 7 + (1 << 31): b"at the edge", size - 20: b"the last"}
    marks[7 + (1 << 32) + 5] = b"third buffer"
    for at, mark in marks.items():
        data[at : at + len(mark)] = np.frombuffer(mark, np.uint8)
    batch = columns([b""] * len(marks))
    batch.value = BytesCarrier(data, np.array(list(marks)), np.full(len(marks), 20, np.int32))
    table = pa.record_batch(batch)
    table.validate(full=True)
    assert table["value"].to_pylist() == [mark.ljust(20, b"\0") for mark in marks.values()]
    pl = pytest.importorskip("polars")
    assert pl.DataFrame(batch)["value"].to_list() == [mark.ljust(20, b"\0") for mark in marks.values()]


# ---- who keeps what alive


def mapped_columns():
    """A batch over a mapping that can be closed only when nobody sees it any more."""
    region = mmap.mmap(-1, 1 << 16)
    region[:100] = bytes(range(100))
    batch = columns([b""] * 3)
    batch.value = BytesCarrier(np.frombuffer(region, np.uint8), np.array([0, 20, 60]), np.array([20, 40, 5], np.int32))
    return region, batch


def assert_closable(region):
    gc.collect()
    region.close()  # BufferError while a view of it is left


def drop_capsules(batch):
    batch.__arrow_c_array__()


def drop_stream_capsule(batch):
    ScanCarrier(lambda: [batch]).__arrow_c_stream__()


def drop_table(batch):
    pa.table(batch)


def drop_stream_table(batch):
    pa.table(ScanCarrier(lambda: [batch, batch]))


def drop_half_read_stream(batch):
    pa.RecordBatchReader.from_stream(ScanCarrier(lambda: iter([batch] * 5))).read_next_batch()


def drop_frame(batch):
    pytest.importorskip("polars").DataFrame(batch)


def drop_query(batch):
    duckdb = pytest.importorskip("duckdb")
    scan = ScanCarrier(lambda: [batch, batch])
    with duckdb.connect() as connection:
        assert connection.sql("select count(*) from scan").fetchone() == (6,)
    del scan


DROPS = [
    drop_capsules,
    drop_stream_capsule,
    drop_table,
    drop_stream_table,
    drop_half_read_stream,
    drop_frame,
    drop_query,
]


@pytest.mark.parametrize("drop", DROPS)
def test_a_mapping_can_be_closed_once_consumers_have_dropped_it(drop):
    region, batch = mapped_columns()
    drop(batch)
    del batch
    assert_closable(region)


def test_a_mapping_cannot_be_closed_while_a_consumer_sees_it():
    region, batch = mapped_columns()
    table = pa.table(batch)
    del batch
    gc.collect()
    with pytest.raises(BufferError):
        region.close()
    assert table["value"].to_pylist() == [bytes(range(20)), bytes(range(20, 60)), bytes(range(60, 65))]
    del table
    assert_closable(region)


def test_the_last_column_of_a_table_keeps_only_itself():
    region, batch = mapped_columns()
    offset_column = pa.table(batch)["offset"].combine_chunks()
    value_data = weakref.ref(batch.value.data)
    del batch
    gc.collect()
    assert offset_column.to_pylist() == [0, 1, 2]
    del offset_column
    gc.collect()
    assert value_data() is None
    assert_closable(region)


def test_a_child_taken_alone_outlives_its_parent():
    region, batch = mapped_columns()
    _schema, array_capsule = batch.__arrow_c_array__()
    parent = ArrowArray.from_address(capsule_address(array_capsule, b"arrow_array"))
    source = ArrowArray.from_address(parent.children[4])
    value = ArrowArray.from_buffer_copy(source)
    source.release = None
    del _schema, array_capsule, parent, source, batch
    gc.collect()
    with pytest.raises(BufferError):
        region.close()
    views = np.ctypeslib.as_array(ctypes.cast(value.buffers[1], ctypes.POINTER(ctypes.c_int32)), (3, 4))
    assert views[:, 0].tolist() == [20, 40, 5]
    del views
    release(value)
    assert not value.release
    assert_closable(region)


def test_consumers_may_drop_in_other_threads():
    region, batch = mapped_columns()
    held = [[pa.table(batch)] for _ in range(8)]
    threads = [threading.Thread(target=tables.clear) for tables in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del batch
    assert_closable(region)


@pytest.mark.parametrize(
    "make", [pa.table, lambda batch: batch.__arrow_c_array__(), lambda batch: stream_capsule([batch])]
)
def test_what_is_dropped_while_an_exception_passes_leaves_it_alone(make):
    region, batch = mapped_columns()

    def fail():
        raise KeyError("mine")

    # The argument already made is dropped with the exception pending: no Python code may run in its release.
    with pytest.raises(KeyError, match="mine"):
        print(make(batch), fail())
    del batch
    assert_closable(region)


AT_EXIT = """
import test_arrow as t
import duckdb, polars as pl, pyarrow as pa
held = [pa.table(t.columns(t.VALUES)), pl.DataFrame(t.columns(t.VALUES)), t.columns(t.VALUES).__arrow_c_array__()]
scan = t.ScanCarrier(lambda: [t.columns(t.VALUES)] * 3)
held.append(scan.__arrow_c_stream__())
reader = pa.RecordBatchReader.from_stream(scan)
reader.read_next_batch()
connection = duckdb.connect()
relation = connection.sql("from scan")
pa.kept = (held, reader, connection, relation)
"""


def test_what_is_alive_at_exit_does_no_harm():
    pytest.importorskip("polars")
    pytest.importorskip("duckdb")
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]  # noqa: PTH120
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", AT_EXIT], env=environment, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")


# ---- streams


def scan_of(*batches):
    return ScanCarrier(lambda: iter(batches))


def test_a_stream_gives_batch_after_batch():
    table = pa.table(scan_of(columns(VALUES), columns([], first=11), columns([b"more"], first=11)))
    table.validate(full=True)
    assert table["value"].to_pylist() == [*VALUES, b"more"]
    assert table["offset"].to_pylist() == list(range(12))
    assert table.schema == exported([]).schema


def test_a_stream_without_batches_has_the_schema():
    table = pa.table(scan_of())
    assert table.num_rows == 0
    assert table.schema == exported([]).schema


def test_polars_reads_a_stream():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(scan_of(columns(VALUES), columns([b"more"], first=11)))
    assert frame["value"].to_list() == [*VALUES, b"more"]


def test_duckdb_reads_a_stream_by_name_as_often_as_asked():
    duckdb = pytest.importorskip("duckdb")
    scan = ScanCarrier(lambda: (columns([b"%d" % i, None, b"x" * 100], first=3 * i) for i in range(1000)))
    with duckdb.connect() as connection:
        for _ in range(2):
            row = connection.sql(
                'select count(*), count("value"), sum("offset"), sum(octet_length("value")), min("timestamp") from scan'
            ).fetchone()
            digits = sum(len(str(i)) for i in range(1000))
            assert row[:4] == (3000, 2000, sum(range(3000)), digits + 100_000)
            assert row[4] == datetime.fromtimestamp(1_760_000_000, UTC)
    del scan


def test_duckdb_can_be_made_to_filter_values():
    duckdb = pytest.importorskip("duckdb")
    batch = pa.table(columns(VALUES))  # noqa: F841  (duckdb finds it by name)
    with duckdb.connect() as connection:
        found = connection.sql("""select "offset" from batch where "value" = 'dddddddddddddd'[2:]::blob""").fetchall()
    assert found == [(5,)]


def test_batches_are_made_when_they_are_asked_for():
    made = []

    def batches():
        for i in range(5):
            made.append(i)
            yield columns([b"x"], first=i)

    reader = pa.RecordBatchReader.from_stream(ScanCarrier(batches))
    assert made == []
    reader.read_next_batch()
    reader.read_next_batch()
    assert made == [0, 1]


def test_an_abandoned_stream_ends_its_iteration():
    ended = []

    def batches():
        try:
            while True:
                yield columns([b"x"])
        finally:
            ended.append(True)

    reader = pa.RecordBatchReader.from_stream(ScanCarrier(batches))
    reader.read_next_batch()
    assert not ended
    del reader
    gc.collect()
    assert ended


def test_an_error_of_the_iteration_reaches_the_consumer_as_text():
    def batches():
        yield columns([b"x"])
        raise ValueError("orders-0/00000000000000000042.log: batch at 8192 ☂")

    reader = pa.RecordBatchReader.from_stream(ScanCarrier(batches))
    reader.read_next_batch()
    with pytest.raises(OSError, match="ValueError: orders-0/00000000000000000042.log: batch at 8192 ☂"):
        reader.read_next_batch()


def test_a_batch_that_cannot_be_exported_is_the_streams_error():
    batch = columns([b"x" * 100])
    batch.value.starts[0] = 50
    with pytest.raises(OSError, match="IndexError: column reaches outside"):
        pa.table(scan_of(batch))


def test_an_iterable_that_is_no_iterator_is_refused_at_once():
    with pytest.raises(TypeError, match="not iterable"):
        stream_capsule(5)


def test_memory_does_not_grow_with_the_number_of_exports():
    def export_all():
        for _ in range(200):
            pa.table(scan_of(columns(VALUES), columns(VALUES)))
            columns(VALUES).__arrow_c_array__()
        gc.collect()

    export_all()
    before = len(gc.get_objects())
    export_all()
    assert len(gc.get_objects()) - before < 50


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
    "values", [VALUES, WITHOUT_NULLS, LONG, LONG + [None], [None] * 3, [b""] * 3, []], ids=lambda v: repr(v)[:20]
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


def test_what_is_exported_can_be_imported():
    assert fields_of(from_arrow(pa.table(scan_of(columns(VALUES), columns(VALUES)))["value"])) == VALUES * 2


@pytest.mark.parametrize("arrow_type", [*BYTES_TYPES, pa.binary(16)], ids=str)
def test_one_chunk_is_not_copied_and_stays_alive(arrow_type):
    array = pa.array([b"exactly 16 bytes"] * 1000, arrow_type)
    before = pa.total_allocated_bytes()
    buffer = array.buffers()[1 if arrow_type == pa.binary(16) else 2]
    arrays = from_arrow(array)
    assert arrays.data.ctypes.data == buffer.address
    del array, buffer
    gc.collect()
    assert pa.total_allocated_bytes() == before
    assert fields_of(arrays) == [b"exactly 16 bytes"] * 1000
    del arrays
    gc.collect()
    assert pa.total_allocated_bytes() < before


def test_foreign_memory_is_not_writable():
    assert not from_arrow(pa.array([b"a shared constant"])).data.flags.writeable


def test_nothing_of_a_producer_is_kept_after_an_import_that_copies():
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
    before = pa.total_allocated_bytes()
    with pytest.raises(TypeError, match=found):
        from_arrow(column)
    assert pa.total_allocated_bytes() == before


def test_an_error_of_a_producers_stream_is_an_os_error_with_its_text():
    def batches():
        yield pa.record_batch({"a": [b"x"]})
        raise RuntimeError("the producer's reason")

    class Source:
        def __arrow_c_stream__(self, requested_schema=None):
            schema = pa.schema([("a", pa.binary())])
            return pa.RecordBatchReader.from_batches(schema, batches()).__arrow_c_stream__()

    class ValueColumn(Source):
        """Not a struct: refused by type before any batch."""

    with pytest.raises(TypeError, match=r"ValueColumn of Arrow format '\+s'"):
        from_arrow(ValueColumn())


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
    "a negative length": Forged(pa.array([b"x"]), lambda s, a: setattr(a, "length", -1)),
    "a negative start": Forged(pa.array([b"x"]), lambda s, a: setattr(a, "offset", -1)),
    "too few buffers": Forged(pa.array([b"x"]), lambda s, a: setattr(a, "n_buffers", 2)),
    "too few buffers for views": Forged(pa.array([b"x"], pa.binary_view()), lambda s, a: setattr(a, "n_buffers", 2)),
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
    assert timestamps_from_arrow(pa.array([1_760_000_000, -1], pa.timestamp("s"))).tolist() == [1_760_000_000_000, -1000]
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


@pytest.mark.parametrize("column", [pa.array([1], pa.int32()), pa.array(["2026-01-01"]), pa.array([1], pa.date32())], ids=str)
def test_timestamps_of_other_types_are_refused(column):
    with pytest.raises(TypeError, match="is not one of timestamps or int64"):
        timestamps_from_arrow(column)


def test_a_large_batch_gives_its_rows():
    chance = random.Random(5)
    values = [chance.randbytes(chance.choice((0, 3, 12, 13, 200))) for _ in range(20_000)]
    assert exported(values, gap=b"gap")["value"].to_pylist() == values
