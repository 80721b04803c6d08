"""pylog._objects.Handle: who is calling into a log, and who may free it."""

from types import SimpleNamespace
from typing import NoReturn

import pytest

import pylog
from pylog._objects import Handle


def no_log(address: int) -> Handle:
    return Handle(address, (0, 0, 0, 0), _never)


def _never(error: bytes) -> NoReturn:
    raise AssertionError(error)


def test_a_log_is_taken_once_and_not_entered_after_that() -> None:
    handle = no_log(4096)
    with handle as is_there:
        assert is_there
        assert handle.calls == 1
        assert handle.take()
        assert not handle.take()
        with handle as is_still_there:
            assert not is_still_there
        assert handle.calls == 1  # the one from before is still inside
    assert handle.calls == 0


def test_whoever_takes_a_log_is_told_once_when_the_last_call_has_returned() -> None:
    handle, told = no_log(4096), []
    with handle:
        with handle:
            assert handle.take(lambda: told.append(handle.calls))
        assert told == []
    assert told == [0]
    idle = no_log(4096)
    assert idle.take(lambda: told.append(1))  # nobody is inside: nothing is to be waited for
    assert told == [0]


def test_no_log_is_neither_entered_nor_taken() -> None:
    handle = no_log(0)
    with handle as is_there:
        assert not is_there
    assert not handle.take()
    assert handle.append(bytearray(61), False, None) is None
    assert handle.flush() is None
    with pytest.raises(TypeError, match="batch, ahead and place"):
        handle.append(bytearray(61))  # type: ignore[call-arg]
    with pytest.raises(BufferError):
        handle.append(b"not to be written to", False, None)


def test_waiting_refuses_what_is_no_partition() -> None:
    handle, reader = no_log(0), SimpleNamespace(position=0)
    with pytest.raises(TypeError, match="11 arguments, not 0"):
        handle.wait_for_few()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="tp must be a TopicPartition"):
        handle.wait_for_few(0, 0, reader, 0, 0, 0, 0, "orders", 1, None, None)  # type: ignore[arg-type]
    orders = pylog.TopicPartition("orders", 0)
    with pytest.raises(TypeError):
        handle.wait_for_few(0, 0, SimpleNamespace(position="0"), 0, 0, 0, 0, orders, 1, None, None)
    with pytest.raises(AttributeError):
        handle.wait_for_few(0, 0, SimpleNamespace(), 0, 0, 0, 0, orders, 1, None, None)
    assert handle.wait_for_few(0, 0, reader, 0, 0, 0, 0, orders, 1, None, None) is None  # it was taken
