"""Locks on single bytes of a file, which the kernel gives back when their owner dies.

They are open-file-description locks: they belong to the opened file, not to the process, so two handles of one process
keep each other out as two processes do, and the threads that share a handle do not.  Bytes may lie behind the end.
A forked child has none of them: its descriptors are closed at the fork (csrc/fork.c).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from . import _native

T = TypeVar("T")

FLOCK = struct.Struct("@hhqqi4x")


def try_lock(fd: int, byte: int, kind: int = fcntl.F_WRLCK) -> bool:
    """Take, convert or (F_UNLCK) give back the lock of a byte; False where another open file has it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


class Opened(Protocol):
    """Who has opened a file with locks."""

    fd: int  # -1: closed


def close_lock_file(owner: Opened) -> None:
    """Give back every lock of the file that `owner` has open, if he has, and close it."""
    fd, owner.fd = owner.fd, -1  # Ctrl-C comes before this or after it
    if fd < 0:
        return
    try:
        # Given back first: closing does that only once no forked child has the descriptor any more.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        pass
    finally:
        _native.close_lock_file(fd)


def holder(fd: int, byte: int, length: int = 1) -> tuple[int, int] | None:
    """Who else has a lock on these bytes (length 0: to the end): None, or the lock's kind and a process id.

    The id is -1 for an open file's lock, as pylog's are; Java's belong to the process.
    """
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, length, 0))
    kind, _, _, _, pid = FLOCK.unpack(found[: FLOCK.size])
    return None if kind == fcntl.F_UNLCK else (kind, pid)


def byte_lock(
    threads: threading.Lock | threading.RLock,
    file: Opened,
    byte: int,
    begin: Callable[[], T],
    end: Callable[[], object] | None = None,
    *,
    waits: bool = True,
    length: int = 1,
) -> _native.ByteLock[T]:
    """For a `with` that gives a byte's lock back, whatever comes: see ByteLock.  length: of several; 0: to the end."""
    unlock = fcntl.fcntl, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, length, 0)
    return _native.ByteLock(threads, file, unlock, begin, end, waits=waits)


class LockFile:
    """One owner's handle of a file whose bytes are locked; the file is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = _native.open_lock_file(str(path.parent), path.name)

    def is_current(self) -> bool:
        """Whether the path still names this file: it may have been removed, and made anew, by another owner."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.fd), self.path.stat())
        return False

    def try_lock(self, byte: int) -> bool:
        """Take the lock of a byte; False where another owner has it."""
        return try_lock(self.fd, byte)

    def lock(self, byte: int) -> None:
        """Take the lock of a byte, however long another owner holds it; signals are looked at meanwhile."""
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLKW, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))

    def unlock(self, byte: int) -> None:
        """Give the lock of a byte back, where no `with` of a ByteLock does."""
        if self.fd >= 0:
            try_lock(self.fd, byte, fcntl.F_UNLCK)

    def is_held(self, byte: int) -> bool:
        """Whether another owner has the lock of this byte."""
        return holder(self.fd, byte) is not None

    def close(self) -> None:
        """Give all locks back."""
        close_lock_file(self)

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:  # dropped without close
            self.close()

    def mark_forked(self) -> None:
        """In a forked child: the descriptor was closed at the fork, its number may be another file's by now."""
        self.fd = -1
