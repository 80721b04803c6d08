"""Columns to Arrow consumers: pyarrow, polars and duckdb see the bytes that are there, and let go of them."""

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

from pylog._arrow import columns_capsules, from_arrow, stream_capsule
from pylog._arrow_abi import ArrowArray, capsule_address, release

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
    expected = [data[at : at + 20].tobytes() for at in marks]
    table = pa.record_batch(batch)
    table.validate(full=True)
    assert table["value"].to_pylist() == expected
    pl = pytest.importorskip("polars")
    assert pl.DataFrame(batch)["value"].to_list() == expected


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
        assert connection.sql("select count(*) from scan").fetchall() == [(6,)]
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


def test_nothing_is_kept_after_the_last_column_of_a_table_is_dropped():
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
    done = subprocess.run([sys.executable, "-c", AT_EXIT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "Fatal", "Exception ignored")), done.stderr


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
            (row,) = connection.sql(
                'select count(*), count("value"), sum("offset"), sum(octet_length("value")), '
                'epoch_ms(min("timestamp")) from scan'
            ).fetchall()
            digits = sum(len(str(i)) for i in range(1000))
            assert row == (3000, 2000, sum(range(3000)), digits + 100_000, 1_760_000_000_000)
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
    with pytest.raises(OSError, match=r"ValueError: orders-0/00000000000000000042.log: batch at 8192 ☂"):
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


def test_a_large_batch_gives_its_rows():
    chance = random.Random(5)
    values = [chance.randbytes(chance.choice((0, 3, 12, 13, 200))) for _ in range(20_000)]
    assert exported(values, gap=b"gap")["value"].to_pylist() == values


def test_what_is_exported_can_be_imported():
    data, starts, lengths = from_arrow(pa.table(scan_of(columns(VALUES), columns(VALUES)))["value"])
    assert [
        None if length == -1 else data[start : start + length].tobytes()
        for start, length in zip(starts, lengths, strict=True)
    ] == VALUES * 2
