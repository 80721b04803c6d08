"""pylog._objects: lists of objects made from columns; headers, checks and hashes of many values."""

import array
import gc
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import _objects
from pylog._objects import BatchBuilder, FutureBase, Record

from .objects_support import FIELD, HEADERS, TIMESTAMP, Reader, Tagged, assert_no_leak, columns, decode, failing


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
