"""The way into the compiled module: what a C status means in Python, and what a fork means for both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from .. import _core  # type: ignore[attr-defined]
from .._errors import (
    CorruptRecordError,
    IllegalStateError,
    InvalidConfigurationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    PylogError,
    StorageError,
    UnknownTopicOrPartitionError,
)
from .._objects import forks

ffi: Any = _core.ffi
lib: Any = _core.lib

CHECK_CRCS: int = lib.PLOG_FETCH_CHECK_CRCS
READ_COMMITTED: int = lib.PLOG_FETCH_READ_COMMITTED
CONTROL: int = lib.PLOG_FETCH_CONTROL

BATCH_HEADER_BYTES = 61
RECORD_BYTES_MIN = 7


_forks_seen = forks()
_in_child: list[Callable[[], None]] = []


def at_fork(function: Callable[[], None]) -> None:
    """Call the function in each forked child: at once, or where Python does not see the fork, by check_fork."""
    _in_child.append(function)


def check_fork() -> None:
    """First of all that is done with a handle, before any lock: this may be a child that a C library has forked."""
    if forks() != _forks_seen:
        _begin_child()


def _begin_child() -> None:
    global _forks_seen
    _forks_seen = forks()
    for function in _in_child:
        function()


os.register_at_fork(after_in_child=_begin_child)


def raise_status(error: Any) -> NoReturn:
    message = ffi.string(error.message).decode(errors="replace")
    file = ffi.string(error.file).decode(errors="surrogateescape")
    status = error.status
    if status == lib.PLOG_IO:
        raise StorageError(error.os_errno, message, file or None)
    if status == lib.PLOG_CORRUPT:
        raise CorruptRecordError(message, file, error.position, error.offset if error.offset >= 0 else None)
    if status == lib.PLOG_OUT_OF_RANGE:
        raise OffsetOutOfRangeError(f"{file}: {message}")
    if status == lib.PLOG_TOO_LARGE:
        raise MessageSizeTooLargeError(f"{file}: {message}")
    if status == lib.PLOG_NO_MEMORY:
        raise MemoryError(message)
    if status == lib.PLOG_INVALID:
        raise InvalidConfigurationError(f"{file}: {message}")
    if status == lib.PLOG_READ_ONLY:
        raise IllegalStateError(f"{file}: {message}")
    if status == lib.PLOG_GONE:
        raise UnknownTopicOrPartitionError(f"{file}: {message}")
    if status == lib.PLOG_POISONED:
        raise StorageError(5, message, file)
    raise PylogError(f"status {status}: {file}: {message}")


def raise_bytes(error: bytes) -> NoReturn:
    """The same, of a plog_error's bytes."""
    raise_status(ffi.from_buffer("plog_error *", error))


def call(function: Any, *arguments: Any) -> None:
    """Call the engine; raise what it says.  While a lock is not to be had, signals are looked at 40 times a second."""
    error = ffi.new("plog_error *")
    while status := function(*arguments, error):
        if status != lib.PLOG_BUSY:
            raise_status(error)
