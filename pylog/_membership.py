"""Who has a data directory open for writing: the locks on its `.lock` file.

Kafka's broker locks the whole file, so it and pylog keep each other out.  pylog locks single bytes of it, with
open-file-description locks, which the kernel gives back when their owner dies:

byte 0  the gate: exclusive, only while a process opens or closes the directory
byte 1  membership: shared, as long as it has the directory open; whoever gets it exclusively is alone
byte 2  small files: exclusive, while checkpoints or pylog.topics are read and replaced

Who is alone at the gate recovers the directory and makes the shared state anew, or, on the way out, leaves it as a
clean shutdown does.  A process that dies on either way leaves the gate to the next, who is alone then and begins again.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from . import _native
from ._errors import LogLockedError
from ._locks import holder, try_lock, unlock_all

GATE, MEMBERSHIP, FILES = 0, 1, 2
WAIT_SECONDS_MAX = 0.02
LOCK_NAME = ".lock"


class Membership:
    """This handle's place among those who have the directory open.  Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path / LOCK_NAME
        self._fd = -1
        # Locks belong to the open file: this handle's threads would not keep each other out.
        self._files = threading.RLock()
        self._files_depth = 0

    @contextlib.contextmanager
    def joining(self) -> Iterator[bool]:
        """Hold the gate while the directory is opened; yields whether this process is alone.

        Raises LogLockedError while a broker has the directory.  A failure inside leaves no lock behind.
        """
        self._pass_gate()
        try:
            alone = self._try(MEMBERSHIP, fcntl.F_WRLCK)
            if not alone:
                self._must(MEMBERSHIP, fcntl.F_RDLCK)
            yield alone
            if alone:
                self._must(MEMBERSHIP, fcntl.F_RDLCK)  # converts it, without a gap
            self._try(GATE, fcntl.F_UNLCK)
        except BaseException:
            self.abandon()
            raise

    @contextlib.contextmanager
    def leaving(self) -> Iterator[bool]:
        """Hold the gate while the directory is closed; yields whether this process is the last one out."""
        self._wait(GATE)
        try:
            self._try(MEMBERSHIP, fcntl.F_UNLCK)
            yield self._try(MEMBERSHIP, fcntl.F_WRLCK)
        finally:
            self.abandon()

    @contextlib.contextmanager
    def files(self) -> Iterator[None]:
        """Hold the directory's small files; may be entered again by the same thread."""
        with self._files:
            if self._files_depth == 0:
                self._wait(FILES)
            self._files_depth += 1
            try:
                yield
            finally:
                self._files_depth -= 1
                if self._files_depth == 0 and self._fd >= 0:
                    self._try(FILES, fcntl.F_UNLCK)

    @contextlib.contextmanager
    def files_if_free(self) -> Iterator[bool]:
        """The same where nobody holds them, not this thread either; yields whether."""
        if not self._files.acquire(blocking=False):
            yield False
            return
        try:
            if self._files_depth > 0 or not self._try(FILES, fcntl.F_WRLCK):
                yield False
                return
            self._files_depth = 1
            try:
                yield True
            finally:
                self._files_depth = 0
                self._try(FILES, fcntl.F_UNLCK)
        finally:
            self._files.release()

    def abandon(self) -> None:
        """Give all locks back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # Given back first: closing does that only once no forked child has the descriptor any more.
            with contextlib.suppress(OSError):
                unlock_all(fd)
            _native.close_lock_file(fd)

    def mark_forked(self) -> None:
        """In a forked child: the descriptor was closed at the fork, its number may be another file's by now."""
        self._fd = -1
        self._files = threading.RLock()

    def _pass_gate(self) -> None:
        """Open the lock file and take the gate of the file that is there then: a broker removes it when it stops."""
        while True:
            self._fd = _native.open_lock_file(str(self._path.parent), LOCK_NAME)
            try:
                self._wait(GATE)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                        return
            except BaseException:
                self.abandon()
                raise
            self.abandon()

    def _wait(self, byte: int) -> None:
        """Take a byte exclusively, however long other pylogs hold it; LogLockedError if a broker does."""
        seconds = 0.0005
        while not self._try(byte, fcntl.F_WRLCK):
            _, pid = holder(self._fd, byte) or (0, -1)
            if pid > 0:  # a process has it, not an open file: no pylog
                raise LogLockedError(f"{self._path.parent} is in use by process {pid} (a Kafka broker?)", pid)
            time.sleep(seconds)  # signals are looked at in between
            seconds = min(seconds * 2, WAIT_SECONDS_MAX)

    def _must(self, byte: int, kind: int) -> None:
        if not self._try(byte, kind):
            raise LogLockedError(f"{self._path.parent} is in use by another process")

    def _try(self, byte: int, kind: int) -> bool:
        return try_lock(self._fd, byte, kind)


def is_held(path: Path) -> bool:
    """Whether anybody, pylog or a broker, has the data directory open for writing; takes no lock to find out."""
    try:
        fd = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # a lock that cannot be looked at is nobody's: who holds one made the file
    try:
        return holder(fd, 0, 0) is not None
    finally:
        os.close(fd)
