"""Columns and BytesColumn: views over the mapped segment."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import BytesColumn, TopicPartition

VALUES = [b"zero", b"", None, b"three" * 1000, b"4"]
KEYS = [None, b"k1", b"", b"k3", None]


@pytest.fixture(params=[None, "lz4"])
def columns(request: pytest.FixtureRequest, log: pylog.Log) -> pylog.Columns:
    """Five records with VALUES and KEYS, timestamps 10 to 14, headers at the second."""
    with log.producer(compression_type=request.param) as producer:
        for i, (value, key) in enumerate(zip(VALUES, KEYS, strict=True)):
            producer.send("orders", value, key, [("h", b"1")] if i == 1 else None, timestamp_ms=10 + i)
    (found,) = log.scan("orders")
    return found


def column(*values: bytes | None) -> BytesColumn:
    data = np.frombuffer(b"".join(value or b"" for value in values), np.uint8)
    lengths = np.array([-1 if value is None else len(value) for value in values], np.int32)
    starts = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))[:-1]]).astype(np.int64)
    return BytesColumn(data, starts, lengths)


def test_columns_hold_what_the_records_hold(columns: pylog.Columns, log: pylog.Log) -> None:
    records = list(log.read("orders"))
    assert (columns.topic, columns.partition, len(columns)) == ("orders", 0, 5)
    assert columns.offset.tolist() == [r.offset for r in records] == list(range(5))
    assert columns.timestamp.tolist() == [r.timestamp for r in records] == list(range(10, 15))
    assert columns.value.tolist() == [r.value for r in records] == VALUES
    assert columns.key.tolist() == [r.key for r in records] == KEYS
    assert [list(headers) for headers in columns.headers()] == [[], [("h", b"1")], [], [], []]
    assert (columns.offset.dtype, columns.timestamp.dtype) == (np.int64, np.int64)
    assert repr(columns) == "<Columns orders-0 0..4, 5 records>"


def test_items_of_a_column_are_views_or_none(columns: pylog.Columns) -> None:
    value = columns.value
    assert [None if item is None else bytes(item) for item in value] == VALUES
    assert [None if value[i] is None else bytes(value[i] or b"") for i in range(-5, 5)] == VALUES * 2
    assert isinstance(value[0], memoryview)
    for i in (5, -6):
        with pytest.raises(IndexError):
            value[i]


def test_data_starts_and_lengths_describe_each_value(columns: pylog.Columns) -> None:
    value = columns.value
    for i, expected in enumerate(VALUES):
        start, length = int(value.starts[i]), int(value.lengths[i])
        if expected is None:
            assert length == -1
        else:
            assert value.data[start : start + length].tobytes() == expected


def test_no_view_can_write_into_the_log(columns: pylog.Columns) -> None:
    view = columns.value[0]
    assert view is not None
    assert view.readonly
    with pytest.raises(ValueError, match="read-only"):
        columns.value.data[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        columns.value.data.flags.writeable = True


def test_uncompressed_values_are_not_copied(log: pylog.Log, tmp_path: Path) -> None:
    log.producer().send_many("orders", [bytes(1000)] * 900).get()
    (columns,) = log.scan("orders")
    first, second = columns.value[0], columns.value[899]
    assert first is not None
    assert second is not None
    at = [np.frombuffer(view, np.uint8).ctypes.data for view in (first, second)]
    assert at[1] - at[0] == int(columns.value.starts[899] - columns.value.starts[0])
    segment = str(tmp_path / "data" / "orders-0" / f"{0:020d}.log")
    ranges = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(segment)
    ]
    assert any(low <= at[0] < high for low, high in ranges)


def test_views_outlive_the_log_and_the_deletion_of_their_segment(tmp_path: Path) -> None:
    with pylog.open(tmp_path, segment_bytes=2000) as log:
        log.producer(batch_size=500).send_many("orders", [b"%0100d" % i for i in range(100)]).get()
        chunks = list(log.scan("orders"))
        log.admin.delete_records({TopicPartition("orders", 0): -1})
    views = [view for chunk in chunks for view in chunk.value]
    del chunks
    assert [bytes(view or b"") for view in views] == [b"%0100d" % i for i in range(100)]


# -- astype


def test_astype_gives_fixed_width_values_as_an_array(log: pylog.Log) -> None:
    rows = np.zeros(500, np.dtype([("id", "<i8"), ("price", ">f4"), ("name", "S3")]))
    rows["id"], rows["price"], rows["name"] = np.arange(500), np.arange(500) / 4, b"abc"
    log.producer().send_columns("orders", rows).get()
    found = np.concatenate([columns.value.astype(rows.dtype) for columns in log.scan("orders")])
    assert (found == rows).all()
    found["id"] = 0  # a copy: the caller's own


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([b"12345678", None], "value 1 is null, int64 takes 8 bytes"),
        ([b"12345678", b"1234"], "value 1 is 4 bytes, int64 takes 8 bytes"),
        ([b""], "value 0 is 0 bytes, int64 takes 8 bytes"),
    ],
)
def test_astype_refuses_a_null_and_another_width_by_number(values: list[bytes | None], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        column(*values).astype(np.int64)


def test_astype_of_nothing_is_an_empty_array() -> None:
    empty = BytesColumn(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int32))
    assert empty.astype("<i4").tolist() == []
    assert (len(empty), list(empty), empty.tolist()) == (0, [], [])


# -- cutting and Arrow


def test_a_cut_is_the_same_records(columns: pylog.Columns) -> None:
    cut = columns.cut(1, 4)
    assert cut.offset.tolist() == [1, 2, 3]
    assert cut.value.tolist() == VALUES[1:4]
    assert [list(headers) for headers in cut.headers()] == [[("h", b"1")], [], []]
    assert len(columns.cut(2, 2)) == 0
    assert repr(columns.cut(2, 2)) == "<Columns orders-0, 0 records>"


def test_arrow_takes_columns_and_scans_as_they_are(columns: pylog.Columns, log: pylog.Log) -> None:
    pa = pytest.importorskip("pyarrow")
    batch = pa.record_batch(columns)
    assert batch.schema.names == ["partition", "offset", "timestamp", "key", "value"]
    assert batch.column("value").to_pylist() == VALUES
    assert batch.column("key").to_pylist() == KEYS
    assert batch.column("offset").to_pylist() == list(range(5))
    assert batch.schema.field("timestamp").type == pa.timestamp("ms", "UTC")
    batch.validate(full=True)
    table = pa.table(log.scan("orders", start=1, end=4))
    assert table.column("value").to_pylist() == VALUES[1:4]


def test_what_arrow_holds_outlives_the_log(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    with pylog.open(tmp_path) as log:
        log.producer().send_many("orders", [b"%050d" % i for i in range(1000)]).get()
        table = pa.table(log.scan("orders"))
        log.admin.delete_topics(["orders"])
    assert table.column("value").to_pylist() == [b"%050d" % i for i in range(1000)]


def test_columns_sent_back_are_the_same_records(log: pylog.Log) -> None:
    pa = pytest.importorskip("pyarrow")
    log.producer().send_many("orders", VALUES, KEYS, timestamps_ms=range(10, 15)).get()
    batch = pa.record_batch(next(iter(log.scan("orders"))))
    sent: Any = log.producer().send_columns(
        "copy", batch.column("value"), batch.column("key"), timestamps_ms=batch.column("timestamp")
    )
    sent.get()
    fields = [[(r.key, r.value, r.timestamp) for r in log.read(topic)] for topic in ("orders", "copy")]
    assert fields[0] == fields[1]
