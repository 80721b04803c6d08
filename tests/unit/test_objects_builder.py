"""pylog._objects: record batches built from Python objects, and the futures of their records."""

import array
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import _objects
from pylog._objects import BatchBuilder, FutureBase, Record

from .objects_support import (
    FIELD,
    HEADER,
    HEADERS,
    TIMESTAMP,
    Hook,
    Index,
    Sent,
    assert_no_leak,
    decode,
    failing,
    needs_python_buffers,
)

BATCH_BYTES_MAX = (2**31 - 1) // 2


@given(st.lists(st.tuples(FIELD, FIELD, HEADERS, TIMESTAMP), min_size=1, max_size=40))
def test_appended_records_are_read_back(entries: list[Any]) -> None:
    builder = BatchBuilder(1 << 20)
    for i, (value, key, headers, timestamp) in enumerate(entries):
        assert builder.append(value, key, headers, timestamp) == i
    assert builder.record_count == len(entries)
    size_bytes = builder.size_bytes
    batch = builder.finish()
    assert len(batch) == size_bytes
    found = [(d.value, d.key, d.headers, d.timestamp) for d in decode(bytes(batch))]
    assert found == [(v, k, h, t) for v, k, h, t in entries]
    timestamps = [entry[3] for entry in entries]
    assert (batch.record_count, batch.base_timestamp, batch.max_timestamp) == (
        len(entries),
        timestamps[0],
        max(timestamps),
    )


@given(st.lists(st.tuples(FIELD, FIELD, TIMESTAMP), max_size=40), HEADERS, st.integers(70, 2000))
def test_extend_makes_the_batches_that_append_makes(entries: list[Any], headers: Any, bytes_max: int) -> None:
    values, keys, timestamps = ([entry[i] for entry in entries] for i in range(3))
    one_by_one, bulk = BatchBuilder(bytes_max), BatchBuilder(bytes_max)
    batches = []
    for value, key, timestamp in entries:
        if one_by_one.append(value, key, headers, timestamp) < 0:
            batches.append(bytes(one_by_one.finish()))
            assert one_by_one.append(value, key, headers, timestamp) == 0
    at, found = 0, []
    while (at := bulk.extend(values, tuple(keys), timestamps, headers, at)[0]) < len(values):
        found.append(bytes(bulk.finish()))
    assert found == batches
    assert all(len(batch) <= bytes_max for batch in batches if len(decode(batch)) > 1)
    if entries:
        assert bytes(bulk.finish()) == bytes(one_by_one.finish())


@pytest.mark.parametrize("kind", [bytearray, memoryview, np.frombuffer, lambda b: array.array("B", b)])
def test_bytes_like_fields_are_encoded_as_bytes(kind: Any) -> None:
    def of(data: bytes) -> Any:
        return np.frombuffer(data, np.uint8) if kind is np.frombuffer else kind(data)

    expected, builder, bulk = BatchBuilder(4096), BatchBuilder(4096), BatchBuilder(4096)
    expected.append(b"value", b"key", [("h", b"x")], 5)
    builder.append(of(b"value"), of(b"key"), [("h", of(b"x"))], 5)
    bulk.extend([of(b"value")], [of(b"key")], 5, [["h", of(b"x")]])
    assert bytes(expected.finish()) == bytes(builder.finish()) == bytes(bulk.finish())


def test_a_full_batch_refuses_until_it_is_finished_and_an_empty_one_takes_any_size() -> None:
    builder = BatchBuilder(300)
    assert builder.append(b"x" * 1000) == 0
    assert builder.append(b"") == -1
    assert builder.record_count == 1
    assert decode(bytes(builder.finish()))[0].value == b"x" * 1000
    assert builder.is_empty
    assert builder.size_bytes == 61
    assert (builder.base_timestamp, builder.max_timestamp) == (-1, -1)
    while builder.append(b"x" * 10) >= 0:
        pass
    assert builder.size_bytes <= 300 < builder.size_bytes + 18
    assert builder.extend([b"x" * 10])[0] == 0


def test_a_batch_may_be_exactly_its_limit() -> None:
    probe = BatchBuilder(1 << 20)
    probe.append(b"a", None, None, 1)
    probe.append(b"b", None, None, 1)
    assert BatchBuilder(probe.size_bytes).extend([b"a", b"b"], None, 1)[0] == 2
    assert BatchBuilder(probe.size_bytes - 1).extend([b"a", b"b"], None, 1)[0] == 1


def test_timestamp_none_is_now() -> None:
    builder = BatchBuilder(4096)
    before = time.time_ns() // 1_000_000
    builder.append(b"v")
    builder.extend([b"v"], None, None)
    assert before <= builder.base_timestamp <= builder.max_timestamp <= time.time_ns() // 1_000_000


def test_finish_writes_the_producers_fields() -> None:
    builder = BatchBuilder(4096)
    builder.append(b"v", None, None, 7)
    batch = builder.finish(attributes=0x10, producer_id=2**40, producer_epoch=3, base_sequence=99)
    fields = HEADER.unpack_from(batch)
    assert (fields[5], fields[9], fields[10], fields[11]) == (0x10, 2**40, 3, 99)
    builder.append(b"v", None, None, 7)
    fields = HEADER.unpack_from(builder.finish())
    assert (fields[5], fields[9], fields[10], fields[11]) == (0, -1, -1, -1)
    with pytest.raises(ValueError, match="no records"):
        builder.finish()


def test_a_finished_batch_is_writable_and_not_touched_by_the_next_one() -> None:
    builder = BatchBuilder(4096)
    builder.append(b"first", None, None, 1)
    batch = builder.finish()
    view = memoryview(batch)
    assert not view.readonly
    assert view.nbytes == len(batch)
    view[17:21] = b"\1\2\3\4"
    copied = bytes(view)
    del batch  # the view alone keeps it
    for _ in range(3):
        builder.append(b"other", None, None, 2)
        builder.finish()
    assert bytes(view) == copied
    del builder
    assert bytes(view) == copied


def test_clear_forgets_the_records() -> None:
    builder = BatchBuilder(4096)
    builder.append(b"gone", None, None, 9)
    builder.clear()
    builder.clear()
    assert builder.is_empty
    assert builder.size_bytes == 61
    builder.append(b"kept", None, None, 3)
    assert [d.value for d in decode(bytes(builder.finish()))] == [b"kept"]


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("text",), TypeError, "value must be bytes-like or None, not str; set value_serializer"),
        ((b"", 5), TypeError, "key must be bytes-like or None, not int; set key_serializer"),
        ((b"", None, 5), TypeError, "headers must be None or a sequence"),
        ((b"", None, "ab"), TypeError, "headers must be None or a sequence"),
        ((b"", None, b"ab"), TypeError, "headers must be None or a sequence"),
        ((b"", None, {"a": b"b"}), TypeError, "headers must be None or a sequence"),
        ((b"", None, [("a", b"b"), "ab"]), TypeError, r"headers\[1\] must be a \(str"),
        ((b"", None, [("a",)]), TypeError, r"headers\[0\] must be a \(str"),
        ((b"", None, [(b"a", b"b")]), TypeError, r"headers\[0\]: key must be str, not bytes"),
        ((b"", None, [("a", "b")]), TypeError, r"headers\[0\]: value must be bytes-like or None, not str"),
        ((b"", None, [("\ud800", b"b")]), UnicodeEncodeError, "surrogates"),
        ((b"", None, None, -5), ValueError, "timestamp must be 0 or more milliseconds since 1970, not -5"),
        ((b"", None, None, 1.5), TypeError, "timestamp must be an int of milliseconds, not <class 'float'>"),
        ((b"", None, None, 2**63), OverflowError, "too large"),
        ((np.zeros((4, 4), np.uint8)[:, 0],), (ValueError, BufferError), "contiguous"),
        ((), TypeError, "not 0 arguments"),
        ((b"",) * 5, TypeError, "not 5 arguments"),
    ],
)
def test_a_refused_record_leaves_the_batch_as_it_was(args: tuple[Any, ...], error: Any, message: str) -> None:
    builder = BatchBuilder(4096)
    builder.append(b"kept", None, None, 5)
    with pytest.raises(error, match=message):
        builder.append(*args)
    with pytest.raises(error):
        builder.append_future(FutureBase, None, *args)
    assert builder.record_count == 1
    assert [d.value for d in decode(bytes(builder.finish()))] == [b"kept"]


def test_a_record_beyond_the_format_is_an_overflow_and_not_a_full_batch() -> None:
    huge = np.empty(BATCH_BYTES_MAX + 1, np.uint8)  # never touched
    builder = BatchBuilder(4096)
    references = sys.getrefcount(huge)
    builder.append(b"kept", None, None, 5)
    for fields in ((huge,), (None, huge), (None, None, [("h", huge)]), (huge[: BATCH_BYTES_MAX // 2 + 1],) * 2):
        with pytest.raises(OverflowError):
            builder.append(*fields)
    del fields
    assert sys.getrefcount(huge) == references
    assert builder.record_count == 1


@pytest.mark.parametrize("bytes_max", [-1, 0, 67, BATCH_BYTES_MAX + 1, 2**62])
def test_a_senseless_size_of_batches_is_refused(bytes_max: int) -> None:
    with pytest.raises(ValueError, match="bytes_max must be 68 to"):
        BatchBuilder(bytes_max)


def test_extend_names_the_index_of_a_wrong_item_and_keeps_those_before() -> None:
    builder = BatchBuilder(4096)
    with pytest.raises(TypeError, match=r"values\[2\] must be bytes-like or None, not str; set value_serializer"):
        builder.extend([b"0", b"1", "2"])
    with pytest.raises(TypeError, match=r"keys\[0\] must be bytes-like or None, not int; set key_serializer"):
        builder.extend([b"0"], [5])
    with pytest.raises(TypeError, match=r"timestamps\[1\] must be an int of milliseconds, not <class 'NoneType'>"):
        builder.extend([b"2", b""], None, [1, None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"timestamps\[0\] must be 0 or more"):
        builder.extend([b""], None, [-1])
    assert [d.value for d in decode(bytes(builder.finish()))] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((np.zeros(3),), TypeError, "values must be a list or tuple, not numpy.ndarray"),
        (([b""], b"k"), TypeError, "keys must be a list or tuple"),
        (([b""], [b"", b""]), ValueError, "keys has 2 items, values has 1"),
        (([b""], None, [1, 2]), ValueError, "timestamps has 2 items, values has 1"),
        (([b""], None, -1), ValueError, "timestamp must be 0 or more"),
        (([b""], None, None, None, 2), ValueError, "start is 2, there are 1 values"),
        (([b""], None, None, None, -1), ValueError, "start is -1"),
        (([b""], None, None, "ab"), TypeError, "headers must be"),
        ((), TypeError, "not 0 arguments"),
    ],
)
def test_extend_refuses_wrong_columns(args: tuple[Any, ...], error: Any, message: str) -> None:
    builder = BatchBuilder(4096)
    with pytest.raises(error, match=message):
        builder.extend(*args)
    assert builder.is_empty


def test_lists_that_shrink_while_they_are_read_do_no_harm() -> None:
    builder = BatchBuilder(1 << 16)
    for keys in (None, [b"k" * 50] * 9):
        values = [bytes([i]) * 100 for i in range(9)]
        timestamps: Any = [0] * 9
        timestamps[3] = Index(7, lambda values=values: values.clear())  # type: ignore[misc]
        assert builder.extend(values, keys, timestamps)[0] == 4
        assert decode(bytes(builder.finish()))[3].value == bytes([3]) * 100
    timestamps = [0, Index(1, lambda: timestamps.clear()), 2]
    with pytest.raises(RuntimeError, match="changed size"):
        builder.extend([b""] * 3, None, timestamps)
    assert builder.record_count == 2


def test_a_builder_that_is_finished_by_its_own_argument_stays_whole() -> None:
    builder = BatchBuilder(4096)
    taken: list[Any] = []
    builder.append(b"first", None, None, 100)
    assert builder.append(b"second", None, None, Index(50, lambda: taken.append(builder.finish()))) == 0  # type: ignore[arg-type]
    assert [d.value for d in decode(bytes(taken[0]))] == [b"first"]
    assert [(d.value, d.timestamp) for d in decode(bytes(builder.finish()))] == [(b"second", 50)]


@needs_python_buffers
def test_buffers_that_run_code_find_the_builder_whole() -> None:
    builder = BatchBuilder(4096)
    hook: Any = Hook(b"outer", lambda: builder.append(b"inner", None, None, 5))
    assert builder.append(hook, None, None, 9) == 1
    assert [d.value for d in decode(bytes(builder.finish()))] == [b"inner", b"outer"]
    values: list[Any] = [b"0", Hook(b"1", lambda: values.clear()), b"2"]
    assert builder.extend(values)[0] == 2
    headers: list[Any] = [("a", Hook(b"1", lambda: headers.clear())), ("b", b"2")]
    assert _objects.encode_headers(headers) == b"\x04\x02a\x021\x02b\x022"
    keys: list[Any] = [Hook(b"", lambda: keys.clear()), b"2"]
    with pytest.raises(RuntimeError, match="changed size"):
        _objects.murmur2_partitions(keys, 3)
    values = [Hook(b"", lambda: values.clear()), "never looked at"]
    _objects.check_values(values, "value")


def test_builders_leak_nothing() -> None:
    builder, values = BatchBuilder(2000), [b"v" * 100, bytearray(100), None] * 10

    def work() -> None:
        builder.append(bytearray(b"v"), memoryview(b"k"), [("h" * 300, b"x" * 300), ("\udcff\udcfe", None)], 5)
        builder.append_future(FutureBase, [], b"v")
        at = 0
        while (at := builder.extend(values, None, None, [("h", b"v")], at)[0]) < len(values):
            builder.finish()
        fresh = BatchBuilder(1 << 20)
        fresh.append(b"x" * 10_000)
        memoryview(fresh.finish()).release()
        fresh.append(b"x" * 20_000)

    assert_no_leak(work, builder, values, *values[:2])
    for args in ((b"", "k"), (bytearray(), "k"), (b"", None, [("a" * 500, b""), ("b", "")]), (b"", b"", None, -1)):
        assert_no_leak(failing((TypeError, ValueError), lambda args=args: builder.append_future(FutureBase, [], *args)))  # type: ignore[misc]
    assert_no_leak(failing(TypeError, lambda: BatchBuilder(500).extend([bytearray(b""), 5])))
    assert_no_leak(failing(ValueError, lambda: BatchBuilder(500).finish()))


def test_an_idle_builder_holds_one_block_however_many_batches_were_in_flight() -> None:
    builder = BatchBuilder(1 << 16)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        in_flight = []
        for _ in range(20):
            builder.append(b"x" * 60_000)
            in_flight.append(builder.finish())
        in_flight.clear()
        assert tracemalloc.get_traced_memory()[0] - before < 2 * (1 << 16)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("future_type", [FutureBase, Sent])
def test_append_future_says_which_record_of_which_batch(future_type: type[FutureBase]) -> None:
    builder, batch = BatchBuilder(200), object()
    futures: list[FutureBase] = []
    while (future := builder.append_future(future_type, batch, b"x" * 20, b"k", [("a", b"")], 5)) is not None:
        futures.append(future)
    assert [future.index for future in futures] == list(range(builder.record_count)) != []
    assert all(future.batch is batch and type(future) is future_type for future in futures)
    assert future_type.make(batch, 7).index == future_type(batch, 7).index == 7


def test_futures_hold_and_release_their_batch() -> None:
    builder, batch = BatchBuilder(200), object()
    references = sys.getrefcount(batch)
    future = builder.append_future(Sent, batch, b"v")
    assert sys.getrefcount(batch) == references + 1
    with pytest.raises(TypeError):
        builder.append_future(Sent, batch, "v")  # type: ignore[arg-type]
    assert builder.append_future(Sent, batch, b"x" * 500) is None
    assert sys.getrefcount(batch) == references + 1
    del future
    assert sys.getrefcount(batch) == references
    assert_no_leak(lambda: (Sent(batch, 1), Sent.make(batch, 1)))


def test_futures_refuse_wrong_arguments() -> None:
    builder: Any = BatchBuilder(200)
    for wrong in (object, 5, Record):
        with pytest.raises(TypeError, match="future_type must be a subclass of FutureBase"):
            builder.append_future(wrong, None, b"")
    assert builder.is_empty
    for args in ((), (1,), (1, 2, 3, 4), (1, "2"), (1, 2, "3")):
        with pytest.raises(TypeError):
            Sent(*args)
        with pytest.raises(TypeError):
            Sent.make(*args)
    with pytest.raises(TypeError):
        Sent(batch=1, index=2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Sent(1, 2).index = 3  # type: ignore[misc]
