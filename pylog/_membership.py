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
from pathlib import Path

from . import _native
from ._errors import LogLockedError
from ._locks import byte_lock, close_lock_file, holder, try_lock

GATE, MEMBERSHIP, FILES = 0, 1, 2
WAIT_SECONDS_MAX = 0.02
LOCK_NAME = ".lock"


class Membership:
    """This handle's place among those who have the directory open.  Thread-safe.

    For `with`:

    joining: holds the gate while the directory is opened; gives whether this process is alone.  Raises LogLockedError
    while a broker has the directory.  A failure inside leaves no lock behind; the caller abandons it then.
    leaving: holds the gate while the directory is closed; gives whether this process is the last one out.  No lock is
    left after it.
    files: the directory's small files are this thread's alone; the same thread may enter it again.
    files_if_free: the same where nobody is in `files`, not this thread either; gives whether.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / LOCK_NAME
        self.fd = -1
        # All bytes at once: who found the gate open, and a failed opener's membership still taken, would join nobody.
        self.joining = byte_lock(threading.RLock(), self, 0, self._begin_joining, self._end_joining, length=0)
        self.leaving = byte_lock(threading.RLock(), self, 0, self._begin_leaving, length=0)
        threads = threading.RLock()
        self.files = byte_lock(threads, self, FILES, self._wait_for_files)
        self.files_if_free = byte_lock(threads, self, FILES, self._try_files, waits=False)

    def _begin_joining(self) -> bool:
        self._pass_gate()
        alone = self._try(MEMBERSHIP, fcntl.F_WRLCK)
        if not alone:
            self._must(MEMBERSHIP, fcntl.F_RDLCK)
        return alone

    def _end_joining(self) -> bool:
        self._must(MEMBERSHIP, fcntl.F_RDLCK)  # from exclusive it converts it, without a gap
        self._try(GATE, fcntl.F_UNLCK)
        return True

    def _begin_leaving(self) -> bool:
        self._wait(GATE)
        self._try(MEMBERSHIP, fcntl.F_UNLCK)
        return self._try(MEMBERSHIP, fcntl.F_WRLCK)

    def abandon(self) -> None:
        """Give all locks back."""
        close_lock_file(self)

    def mark_forked(self) -> None:
        """In a forked child: the descriptor was closed at the fork, its number may be another file's by now."""
        self.fd = -1

    def _wait_for_files(self) -> None:
        self._wait(FILES)

    def _try_files(self) -> bool:
        return self.files.depth == 0 and self._try(FILES, fcntl.F_WRLCK)

    def _pass_gate(self) -> None:
        """Open the lock file and take the gate of the file that is there then: a broker removes it when it stops."""
        while True:
            self.fd = _native.open_lock_file(str(self._path.parent), LOCK_NAME)
            try:
                self._wait(GATE)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self.fd), self._path.stat()):
                        return
            except BaseException:
                self.abandon()
                raise
            self.abandon()

    def _wait(self, byte: int) -> None:
        """Take a byte exclusively, however long other pylogs hold it; LogLockedError if a broker does."""
        seconds = 0.0005
        while not self._try(byte, fcntl.F_WRLCK):
            _, pid = holder(self.fd, byte) or (0, -1)
            if pid > 0:  # a process has it, not an open file: no pylog
                raise LogLockedError(f"{self._path.parent} is in use by process {pid} (a Kafka broker?)", pid)
            time.sleep(seconds)  # signals are looked at in between
            seconds = min(seconds * 2, WAIT_SECONDS_MAX)

    def _must(self, byte: int, kind: int) -> None:
        if not self._try(byte, kind):
            raise LogLockedError(f"{self._path.parent} is in use by another process")

    def _try(self, byte: int, kind: int) -> bool:
        return try_lock(self.fd, byte, kind)


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
