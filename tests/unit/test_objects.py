"""The extension module of csrc/python, against a small reader of record batches that is written out here."""

import array
import copy
import gc
import pickle
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import _objects
from pylog._objects import BatchBuilder, FutureBase, Record

HEADER = struct.Struct(">qiibIhiqqqhii")
BATCH_BYTES_MAX = (2**31 - 1) // 2


class Decoded(NamedTuple):
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    key_at: int
    value_at: int
    headers_at: int


class Reader:
    """Walks the bytes of one batch."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)

    def field(self) -> bytes | None:
        length = self.varint()
        if length < 0:
            return None
        self.at += length
        assert self.at <= len(self.data)
        return self.data[self.at - length : self.at]

    def headers(self) -> list[tuple[str, bytes | None]]:
        found = []
        for _ in range(self.varint()):
            key = self.field()
            assert key is not None
            found.append((key.decode("utf-8", "surrogateescape"), self.field()))
        return found


def decode(batch: bytes) -> list[Decoded]:
    """The records of an uncompressed batch whose header must agree with them."""
    header = HEADER.unpack_from(batch)
    base_offset, length, epoch, magic, crc, _, last_delta, base_timestamp, max_timestamp = header[:9]
    assert (base_offset, epoch, magic, crc) == (0, 0, 2, 0)
    assert length == len(batch) - 12
    reader = Reader(batch, HEADER.size)
    found: list[Decoded] = []
    while reader.at < len(batch):
        record_bytes = reader.varint()
        end = reader.at + record_bytes
        assert batch[reader.at] == 0
        reader.at += 1
        timestamp = base_timestamp + reader.varint()
        assert reader.varint() == len(found)
        key = reader.field()
        key_at = reader.at - len(key or b"")
        value = reader.field()
        value_at, headers_at = reader.at - len(value or b""), reader.at
        found.append(Decoded(timestamp, key, value, reader.headers(), key_at, value_at, headers_at))
        assert reader.at == end
    assert header[12] == len(found) == last_delta + 1
    assert base_timestamp == found[0].timestamp
    assert max_timestamp == max(record.timestamp for record in found)
    return found


def columns(decoded: list[Decoded]) -> tuple[Any, ...]:
    """offsets, timestamps, key_at, key_bytes, value_at, value_bytes, headers_at."""

    def length(field: bytes | None) -> int:
        return -1 if field is None else len(field)

    return (
        np.arange(len(decoded), dtype=np.int64),
        np.array([d.timestamp for d in decoded], dtype=np.int64),
        np.array([d.key_at for d in decoded], dtype=np.int64),
        np.array([length(d.key) for d in decoded], dtype=np.int32),
        np.array([d.value_at for d in decoded], dtype=np.int64),
        np.array([length(d.value) for d in decoded], dtype=np.int32),
        np.array([d.headers_at for d in decoded], dtype=np.int64),
    )


class Hook:
    """Bytes whose export runs code (from Python 3.12 on)."""

    def __init__(self, data: bytes, code: Callable[[], object]) -> None:
        self.data, self.code = data, code

    def __buffer__(self, flags: int) -> memoryview:
        self.code()
        return memoryview(self.data)


needs_python_buffers = pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ came with Python 3.12")


class Index:
    """An int whose reading runs code."""

    def __init__(self, number: int, code: Callable[[], object]) -> None:
        self.number, self.code = number, code

    def __index__(self) -> int:
        self.code()
        return self.number


def assert_no_leak(work: Callable[[], object], *watched: object) -> None:
    """Blocks, traced bytes and references to the types and to what is watched do not grow with the number of calls."""
    rounds = 300
    objects = (None, Record, Tagged, FutureBase, Sent, BatchBuilder, _objects.BatchBuffer, *watched)

    def measure() -> list[int]:
        for _ in range(rounds):
            work()
        gc.collect()
        return [
            sys.getallocatedblocks(),
            tracemalloc.get_traced_memory()[0] // 16,  # no object is smaller
            *(sys.getrefcount(thing) for thing in objects),
        ]

    tracemalloc.start()
    try:
        before = measure()
        # The interpreter's own caches grow at first; a leak grows in every one of the attempts.
        for _ in range(6):
            after = measure()
            growth = [new - old for new, old in zip(after, before, strict=True)]
            if max(growth) < rounds * 3 // 4:
                return
            before = after
    finally:
        tracemalloc.stop()
    pytest.fail(f"blocks, bytes / 16 and references grew by {growth} in {rounds} calls")


def failing(error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        with pytest.raises(error):
            call()

    return work


# ---- Record

ARGS = ("orders", b"value", b"key", (("h", b"1"), ("n", None)), 3, 2**40, 1_700_000_000_000, 1)
NAMES = ("topic", "value", "key", "headers", "partition", "offset", "timestamp", "timestamp_type")


class Tagged(Record):
    __slots__ = ("tag",)
    tag: str


class Open(Record):
    pass


def test_record_keeps_every_argument_by_position_and_by_name() -> None:
    by_position, by_name = Record(*ARGS), Record(**dict(zip(NAMES, ARGS, strict=True)))  # type: ignore[arg-type]
    for name, arg in zip(NAMES, ARGS, strict=True):
        assert getattr(by_position, name) == arg == getattr(by_name, name)
    assert by_position == by_name
    assert hash(by_position) == hash(by_name)


def test_record_defaults_are_those_of_an_unread_record() -> None:
    record = Record()
    assert [getattr(record, name) for name in NAMES] == ["", None, None, (), 0, 0, -1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_record_differs_by_each_field_and_none_can_be_set(name: str) -> None:
    record = Record(*ARGS)
    change: Any = {"topic": "o", "partition": 4, "offset": 5, "timestamp": 6, "timestamp_type": 0}.get(name, b"other")
    changed = record.replace(**{name: change})
    assert getattr(changed, name) == change
    assert changed != record
    assert hash(changed) != hash(record)
    assert changed.replace(**{name: getattr(record, name)}) == record
    with pytest.raises(AttributeError):
        setattr(record, name, change)
    with pytest.raises(AttributeError):
        delattr(record, name)


def test_record_is_not_equal_to_other_types() -> None:
    record = Record(*ARGS)
    assert record != ARGS
    assert record != Tagged(*ARGS)
    assert record.__eq__(ARGS) is NotImplemented
    with pytest.raises(TypeError):
        _ = record < record  # type: ignore[operator]


def test_record_with_an_unhashable_value_cannot_be_hashed_but_compared() -> None:
    assert Record(value=[1]) == Record(value=[1])
    with pytest.raises(TypeError, match="unhashable"):
        hash(Record(value=[1]))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_record_and_subclasses_pickle_with_their_own_state(protocol: int) -> None:
    record, tagged, opened = Record(*ARGS), Tagged(*ARGS), Open(*ARGS)
    tagged.tag, opened.extra = "t", 5  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(record, protocol)) == record
    if protocol >= 2:  # slots need it
        loaded = pickle.loads(pickle.dumps(tagged, protocol))
        assert type(loaded) is Tagged
        assert loaded == tagged
        assert loaded.tag == "t"
    assert pickle.loads(pickle.dumps(opened, protocol)).extra == 5
    assert copy.copy(record) == record == copy.deepcopy(record)
    assert record.__reduce__() == (Record, ARGS)


def test_record_matches_by_position() -> None:
    match Record(*ARGS):
        case Record("orders", value, b"key"):
            assert value == b"value"
        case _:
            pytest.fail("no match")
    assert Record.__match_args__ == NAMES


def test_record_repr_names_every_field_and_abbreviates_long_ones() -> None:
    text = repr(Record("t", b"v", b"k", (), 0, 5, 6, 1))
    assert text == (
        "Record(topic='t', partition=0, offset=5, timestamp=6, timestamp_type=1, key=b'k', value=b'v', headers=())"
    )
    text = repr(Record(value=b"x" * 1000, key="y" * 500))
    assert "(1000 bytes)" in text
    assert "(500 characters)" in text
    assert len(text) < 300
    assert repr(Tagged()).startswith("Tagged(")
    values: list[Any] = []
    values.append(Record(value=values))
    assert "..." in repr(values[0])
    values.clear()


def test_record_refuses_wrong_arguments() -> None:
    for arguments in ({"topic": b"t"}, {"partition": "0"}, {"unknown": 1}):
        with pytest.raises(TypeError):
            Record(**arguments)
    with pytest.raises(ValueError, match="timestamp_type"):
        Record(timestamp_type=2)
    with pytest.raises(OverflowError):
        Record(partition=2**31)
    with pytest.raises(TypeError, match="no field 'colour'"):
        Record().replace(colour=1)
    with pytest.raises(TypeError):
        Record().replace(1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="timestamp_type"):
        Record().replace(timestamp_type=7)


def test_record_type_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Record.topic = "x"  # type: ignore[assignment, method-assign]


def test_record_leaks_nothing() -> None:
    def work() -> None:
        record = Record(*ARGS)
        hash(record), repr(record), pickle.loads(pickle.dumps(record)), record.replace(offset=1), Tagged(*ARGS)
        tagged = Open(*ARGS)
        tagged.me = tagged  # type: ignore[attr-defined]

    assert_no_leak(work, *ARGS)
    assert_no_leak(failing(TypeError, lambda: Record().replace(colour=1)))


# ---- building batches

FIELD = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=20), FIELD), max_size=4)
TIMESTAMP = st.integers(0, 2**63 - 1)


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


# ---- futures


class Sent(FutureBase):
    __slots__ = ()


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


# ---- lists from columns


@given(st.lists(st.tuples(FIELD, FIELD, HEADERS, TIMESTAMP), min_size=1, max_size=30))
def test_records_from_columns_are_those_that_were_appended(entries: list[Any]) -> None:
    builder = BatchBuilder(1 << 20)
    for entry in entries:
        builder.append(*entry)
    batch = builder.finish()
    given_columns = columns(decode(bytes(batch)))
    found = _objects.records("t", 3, 1, batch, *given_columns)
    assert found == [Record("t", v, k, tuple(h), 3, i, t, 1) for i, (v, k, h, t) in enumerate(entries)]
    assert _objects.bytes_list(batch, *given_columns[4:6]) == [entry[0] for entry in entries]
    assert _objects.headers_list(batch, given_columns[6]) == [tuple(entry[2]) for entry in entries]


@pytest.fixture
def three() -> tuple[bytes, tuple[Any, ...]]:
    builder = BatchBuilder(4096)
    builder.extend([b"11", None, b"33"], [b"aa", b"bb", None], 5, [("h", b"x")])
    batch = bytes(builder.finish())
    return batch, columns(decode(batch))


def test_deserializers_see_bytes_and_never_null(three: Any) -> None:
    found = _objects.records("t", 0, 0, three[0], *three[1], key_deserializer=bytes.decode, value_deserializer=int)
    assert [(r.key, r.value) for r in found] == [("aa", 11), ("bb", None), (None, 33)]


def test_an_exception_of_a_deserializer_propagates_and_leaks_nothing(three: Any) -> None:
    def fail(data: bytes) -> Any:
        return 1 // (data != b"33")

    assert_no_leak(
        failing(ZeroDivisionError, lambda: _objects.records("t", 0, 0, three[0], *three[1], value_deserializer=fail))
    )
    assert_no_leak(lambda: _objects.records("t", 0, 0, three[0], *three[1], key_deserializer=bytes.decode))


def test_a_list_under_construction_cannot_be_found(three: Any) -> None:
    def look(data: bytes) -> bytes:
        gc.collect()
        for candidate in gc.get_objects():
            if type(candidate) is list and len(candidate) == 3:
                repr(candidate)  # a hole would end the process
            elif type(candidate) is Tagged:
                repr(candidate)
        return data

    assert len(_objects.records("t", 0, 0, *three[:1], *three[1], value_deserializer=look, record_type=Tagged)) == 3


def test_records_are_of_the_type_asked_for_and_tracked_by_the_collector(three: Any) -> None:
    found = _objects.records("t", 0, 0, three[0], *three[1], record_type=Tagged)
    assert [type(r) for r in found] == [Tagged] * 3
    assert gc.is_tracked(found)
    found[0].tag = "x"
    assert found[0].tag == "x"
    assert found[0].value == b"11"
    for wrong in (object, FutureBase, 5):
        with pytest.raises(TypeError):
            _objects.records("t", 0, 0, three[0], *three[1], record_type=wrong)  # type: ignore[arg-type, type-var]


def test_headers_absent_are_one_shared_tuple() -> None:
    builder = BatchBuilder(4096)
    builder.extend([b"1", b"2"])
    batch = bytes(builder.finish())
    first, second = _objects.records("t", 0, 0, batch, *columns(decode(batch)))
    assert first.headers == ()
    assert first.headers is second.headers


def test_header_keys_that_are_no_utf8_survive_both_ways() -> None:
    encoded = b"\2\4\xff\xe9\1"
    found = _objects.headers_list(encoded, np.zeros(1, np.int64))
    assert found == [(("\udcff\udce9", None),)]
    assert _objects.encode_headers(found[0]) == encoded


@pytest.mark.parametrize(
    ("at", "length"),
    [(0, 11), (10, 1), (11, 0), (-1, 1), (2**63 - 1, 1), (2**63 - 1, 2**31 - 1), (-(2**63), 1), (0, -2), (5, -(2**31))],
)
def test_positions_outside_the_data_are_refused_by_index(at: int, length: int) -> None:
    data = b"0123456789"
    starts, lengths = np.array([0, at], np.int64), np.array([1, length], np.int32)
    with pytest.raises(ValueError, match=r"index 1: .* outside data of 10 bytes"):
        _objects.bytes_list(data, starts, lengths)
    zeros, nulls = np.zeros(2, np.int64), np.full(2, -1, np.int32)
    for what, fields in (("key", (starts, lengths, zeros, nulls)), ("value", (zeros, nulls, starts, lengths))):
        with pytest.raises(ValueError, match=rf"{what} 1: .* outside data"):
            _objects.records("t", 0, 0, b"\0" * 10, zeros, zeros, *fields, zeros)  # type: ignore[call-overload]


def test_positions_up_to_the_end_of_the_data_are_taken() -> None:
    starts, lengths = np.array([0, 10, 9, -7], np.int64), np.array([10, 0, 1, -1], np.int32)
    assert _objects.bytes_list(b"0123456789", starts, lengths) == [b"0123456789", b"", b"9", None]
    assert _objects.bytes_list(b"", np.array([], np.int64), np.array([], np.int32)) == []


@pytest.mark.parametrize("at", [-1, 5, 2**62, 1])
@pytest.mark.parametrize("data", [b"\0\4\2a\2", b"\0\xff\xff\xff\xff", b"\0\1\0\0\0", b"\0\2\1\0\0", b"\0\2\0\3\0"])
def test_headers_that_are_not_valid_are_refused(at: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"headers_at\[1\]"):
        _objects.headers_list(data, np.array([0, at], np.int64))


@given(st.binary(max_size=40), st.integers(-2, 42))
def test_any_bytes_are_either_headers_or_refused(data: bytes, at: int) -> None:
    try:
        found = _objects.headers_list(data, np.array([at], np.int64))[0]
    except ValueError:
        return
    assert list(found) == Reader(data, at).headers()


def test_columns_of_other_types_are_refused() -> None:
    starts, lengths = np.zeros(4, np.int64), np.zeros(4, np.int32)
    wrong: list[tuple[Any, Any]] = [
        (lengths, lengths),
        (starts, starts),
        (starts.astype(np.float64), lengths),
        (starts.astype(np.uint64), lengths),
        (starts.astype(">i8"), lengths),
        (starts.reshape(2, 2), lengths),
        (b"\0" * 32, lengths),
        ([0, 0], lengths),
    ]
    for bad_starts, bad_lengths in wrong:
        with pytest.raises(TypeError):
            _objects.bytes_list(b"abc", bad_starts, bad_lengths)
    with pytest.raises((ValueError, BufferError)):
        _objects.bytes_list(b"abc", np.zeros(8, np.int64)[::2], lengths)
    with pytest.raises(ValueError, match="lengths has 4 items, starts has 3"):
        _objects.bytes_list(b"abc", starts[:3], lengths)
    with pytest.raises(ValueError, match="timestamps has 4 items, offsets has 3"):
        _objects.records("t", 0, 0, b"\0", starts[:3], starts, starts, lengths, starts, lengths, starts)
    with pytest.raises(TypeError):
        _objects.bytes_list("abc", starts, lengths)  # type: ignore[arg-type]


def test_other_sources_of_int_columns_are_taken() -> None:
    unaligned = np.frombuffer(b"x" + np.array([1, 2], np.int64).tobytes(), np.int64, offset=1)
    for starts in (array.array("q", [1, 2]), memoryview(array.array("l", [1, 2])), unaligned):
        assert _objects.bytes_list(b"abcd", starts, array.array("i", [1, 2])) == [b"b", b"cd"]


def test_data_is_held_while_it_is_read_and_let_go_after(three: Any) -> None:
    data = bytearray(three[0])

    def grow(field: bytes) -> bytes:
        with pytest.raises(BufferError):
            data.append(1)
        return field

    _objects.records("t", 0, 0, data, *three[1], value_deserializer=grow)
    data.append(1)
    three[1][4][1:] = 2**40
    with pytest.raises(ValueError, match="value 2"):
        _objects.records("t", 0, 0, data, *three[1])
    data.append(1)


def test_a_column_that_a_deserializer_changes_is_checked_as_it_is_read(three: Any) -> None:
    def spoil(field: bytes) -> bytes:
        three[1][4][:] = 2**50
        return field

    with pytest.raises(ValueError, match="value 0: 2 bytes at 1125899906842624 lie outside"):
        _objects.records("t", 0, 0, three[0], *three[1], key_deserializer=spoil)


def test_lists_from_columns_leak_nothing(three: Any) -> None:
    data, given_columns = three
    assert_no_leak(lambda: _objects.records("t", 0, 0, data, *given_columns), "t", data, (), *given_columns)
    assert_no_leak(lambda: _objects.records("t", 0, 0, data, *given_columns, record_type=Tagged))
    assert_no_leak(lambda: _objects.bytes_list(data, *given_columns[4:6]))
    assert_no_leak(lambda: _objects.headers_list(data, given_columns[6]))
    for column in (2, 4, 6):
        bad = list(given_columns)
        bad[column] = np.array([given_columns[column][0]] * 2 + [2**40], np.int64)
        if column == 2:
            bad[3] = np.ones(3, np.int32)
        assert_no_leak(failing(ValueError, lambda bad=bad: _objects.records("t", 0, 0, data, *bad)))  # type: ignore[misc]


# ---- values, headers, hashes


def test_check_values_names_the_first_wrong_item() -> None:
    assert _objects.check_values([b"", None, bytearray(), memoryview(b""), np.zeros(2)], "value") == 16
    assert _objects.check_values([b"abc", None], "value") == 3
    assert _objects.check_values([None], "value") == 0
    with pytest.raises(TypeError, match=r"values\[1\] must be bytes-like or None, not int; set value_serializer"):
        _objects.check_values((b"", 5, "x"), "value")
    with pytest.raises(TypeError, match=r"keys\[0\] must be bytes-like or None, not str; set key_serializer"):
        _objects.check_values(["x"], "key")
    with pytest.raises((ValueError, BufferError)):
        _objects.check_values([memoryview(b"abcd")[::2]], "value")
    with pytest.raises(TypeError, match="values must be a list or tuple"):
        _objects.check_values(b"abc", "value")  # type: ignore[arg-type]


@given(HEADERS)
def test_encoded_headers_are_read_back(headers: Any) -> None:
    encoded = _objects.encode_headers(headers)
    reader = Reader(encoded)
    assert reader.headers() == headers
    assert reader.at == len(encoded)
    assert _objects.headers_list(encoded, np.zeros(1, np.int64)) == [tuple(headers)]


def test_no_headers_and_many_headers_are_encoded() -> None:
    assert _objects.encode_headers(None) == _objects.encode_headers([]) == _objects.encode_headers(()) == b"\0"
    many = [(f"key{i}", bytes(i % 700)) for i in range(5000)]
    assert Reader(_objects.encode_headers(many)).headers() == many


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107), (bytearray(b"abc"), 479470107)],
)
def test_murmur2_is_kafkas(key: Any, expected: int) -> None:
    assert _objects.murmur2(key) == expected


def murmur2_model(data: bytes) -> int:
    """The published algorithm in plain Python."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    hash_ = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hash_ = (hash_ * multiplier & mask) ^ word
    if data[whole:]:
        hash_ = (hash_ ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    hash_ = (hash_ ^ hash_ >> 13) * multiplier & mask
    hash_ ^= hash_ >> 15
    return hash_ - (hash_ >> 31 << 32)


@given(st.lists(st.none() | st.binary(max_size=20)), st.integers(1, 2**31 - 1))
def test_partitions_are_those_of_the_default_partitioner(keys: list[bytes | None], partitions: int) -> None:
    found = memoryview(_objects.murmur2_partitions(keys, partitions)).cast("i").tolist()
    assert found == [-1 if key is None else (murmur2_model(key) & 0x7FFFFFFF) % partitions for key in keys]


def test_hashing_refuses_what_is_no_key() -> None:
    with pytest.raises(TypeError, match="not None"):
        _objects.murmur2(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"keys\[1\] must be bytes-like"):
        _objects.murmur2_partitions([b"", "x"], 3)
    for partitions in (0, -1, 2**31):
        with pytest.raises(ValueError, match="partitions must be"):
            _objects.murmur2_partitions([b""], partitions)
