"""What a Log keeps for its groups."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .administration import living
from .offsets import CommittedOffsets
from .watcher import Watcher

if TYPE_CHECKING:
    from .._log import Log


class Groups:
    """The committed offsets, and who notices deaths.  Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._watcher: Watcher | None = None
        self.offsets = CommittedOffsets(log)

    @property
    def watcher(self) -> Watcher:
        """Started when it is first needed."""
        with self._lock:
            if self._watcher is None:
                self._watcher = Watcher(f"pylog {self._log.directory.path.name}")
            return self._watcher

    def is_alive(self, group: str) -> bool:
        """Whether the group has members."""
        return bool(living(self._log, group).members)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._watcher is not None:
                self._watcher.stop()
