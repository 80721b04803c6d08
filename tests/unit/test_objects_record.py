"""pylog._objects: the record type."""

import copy
import pickle
from typing import Any

import pytest

from pylog._objects import Record

from .objects_support import Tagged, assert_no_leak, failing

ARGS = ("orders", b"value", b"key", (("h", b"1"), ("n", None)), 3, 2**40, 1_700_000_000_000, 1)
NAMES = ("topic", "value", "key", "headers", "partition", "offset", "timestamp", "timestamp_type")


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
