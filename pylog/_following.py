"""What a read_only handle has of those who write to the directory meanwhile: their shared state, or naps.

It takes no lock, so nobody tells it that somebody opens the directory, or that the last one leaves and the next writes
pylog.shm anew.  It looks by itself, whenever it is used and some times a second while it waits.

pylog.shm is believed where somebody holds membership shared and the file of that name is the one mapped: whoever holds
it got it after the file was written, and who writes another is alone first.  Once mapped it is believed until there is
another one: where the last writer left, or died, the log ends where the shared state says, or else somebody has
recovered it.  Where it cannot be believed (nobody writes; a broker does; a network file system; another version of
pylog) each log is followed by its files.
"""

import fcntl
import os
import time
from pathlib import Path

from . import _native
from ._errors import PylogError
from ._locks import holder
from ._membership import LOCK_NAME, MEMBERSHIP

# How long to sleep at most before looking again: where writers ring a bell, and where nothing is heard of them.
RUNG_NAP_SECONDS = 0.05
DEAF_NAP_SECONDS = 0.01


class Following:
    """A reader's view of who writes.  Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._names_seen = 0
        self._unopened: list[tuple[int, str]] = []
        self._files_due = 0.0
        self._topics_stamp = 0
        self._alone()
        self.look()

    def _alone(self) -> None:
        self.shared: _native.Shared | None = None
        self.bell: _native.Bell | _native.SharedBell = _native.Bell()
        self.nap_seconds = DEAF_NAP_SECONDS

    def look(self) -> bool:
        """Find out who writes now; whether what was known of topics and logs is void."""
        if self.shared is not None and self._is_current(self.shared):
            return False
        was, joined = self.shared, self._join()
        if was is None and joined is None:
            return False
        self._alone()
        self._names_seen, self._unopened = 0, []
        if joined is not None:
            self.shared = joined
            if joined.writable:
                self.bell, self.nap_seconds = joined.bell, RUNG_NAP_SECONDS
        return True

    def newly_opened(self) -> list[str]:
        """Directory names of partitions that a writer has opened since the last call: what to follow is known now."""
        shared = self.shared
        if shared is None:
            return []
        for name in shared.slot_names(self._names_seen):
            self._unopened.append((self._names_seen, name))
            self._names_seen += 1
        if not self._unopened:
            return []
        opened = [(at, name) for at, name in self._unopened if shared.slot_opened(at)]
        self._unopened = [item for item in self._unopened if item not in opened]
        return [name for _, name in opened]

    def files_due(self) -> bool:
        """Whether it is time to look at the files of the logs that share nothing."""
        now = time.monotonic()
        if now < self._files_due:
            return False
        self._files_due = now + DEAF_NAP_SECONDS / 2
        return True

    def topics_due(self) -> bool:
        """Whether files of the directory have come or gone, where nobody says so."""
        if self.shared is not None:
            return False
        stamp = self._path.stat().st_mtime_ns
        if stamp == self._topics_stamp:
            return False
        # Another change within the clock's tick would not show: one so fresh is looked at again.
        self._topics_stamp = stamp if time.time_ns() - stamp > 50_000_000 else 0
        return True

    def _join(self) -> _native.Shared | None:
        if not self._has_members():
            return None
        try:
            shared = _native.Shared.follow(str(self._path))
        except PylogError:
            return None
        return shared if self._has_members() and self._is_current(shared) else None

    def _is_current(self, shared: _native.Shared) -> bool:
        try:
            return os.path.samestat(os.fstat(shared.fd), (self._path / "pylog.shm").stat())
        except OSError:
            return False

    def _has_members(self) -> bool:
        """Whether somebody holds membership shared, as all do but while they open or close alone."""
        try:
            fd = os.open(self._path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            found = holder(fd, MEMBERSHIP)
        except OSError:
            return False
        finally:
            os.close(fd)
        return found is not None and found[0] == fcntl.F_RDLCK
