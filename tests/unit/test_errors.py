"""The tree of exceptions."""

import builtins
import errno

import pytest

import pylog

ERRORS = [value for value in vars(pylog).values() if isinstance(value, type) and issubclass(value, builtins.Exception)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_everything_raised_on_our_own_account_is_a_pylog_error(error: type[Exception]) -> None:
    assert issubclass(error, pylog.PylogError)


def test_only_errors_that_may_pass_say_that_a_retry_may_help() -> None:
    retriable = {error.__name__ for error in ERRORS if error.retriable}  # type: ignore[attr-defined]
    assert retriable == {
        "RetriableError",
        "KafkaTimeoutError",
        "LogLockedError",
        "RebalanceInProgressError",
        "UnknownTopicOrPartitionError",
    }
    assert all(issubclass(getattr(pylog, name), pylog.RetriableError) for name in retriable)


@pytest.mark.parametrize("error", [pylog.ClosedError, pylog.ForkError, pylog.ConcurrentUseError])
def test_a_call_that_cannot_be_made_now_is_an_illegal_state(error: type[Exception]) -> None:
    assert issubclass(error, pylog.IllegalStateError)


def test_a_storage_error_is_an_os_error_with_its_number_and_file() -> None:
    with pytest.raises(OSError, match="no room") as raised:
        raise pylog.StorageError(errno.ENOSPC, "no room", "orders-0/0.log")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == "orders-0/0.log"


def test_a_timeout_is_python_s_own_timeout_too() -> None:
    assert issubclass(pylog.KafkaTimeoutError, TimeoutError)


def test_a_corrupt_record_is_named_with_file_position_and_offset() -> None:
    error = pylog.CorruptRecordError("crc 0x1, computed 0x2", "orders-0/0.log", 8192, 42)
    assert str(error) == "orders-0/0.log: batch at 8192: crc 0x1, computed 0x2 (offset 42)"
    assert (error.file, error.position, error.offset) == ("orders-0/0.log", 8192, 42)


def test_a_corrupt_record_without_a_place_says_only_what_is_wrong() -> None:
    error = pylog.CorruptRecordError("torn")
    assert (str(error), error.file, error.position, error.offset) == ("torn", "", -1, None)


def test_a_lock_error_knows_its_owner_or_minus_one() -> None:
    assert pylog.LogLockedError("in use").pid == -1
    assert pylog.LogLockedError("in use", 17).pid == 17


@pytest.mark.parametrize("name", pylog.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert hasattr(pylog, name)
