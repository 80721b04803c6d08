"""Sees that what was appended reaches the disk in time, and that recovery points are noted."""

from __future__ import annotations

from collections.abc import Callable

from ._background import Background
from ._errors import ClosedError, PylogError, UnknownTopicOrPartitionError
from ._partition import Partition

CHECKPOINT_SECONDS = 10.0


class Flusher:
    """Flushes appended partitions flush_ms after the append, notes recovery points every 10 s and after a roll.

    Runs in the log's background thread.  A flush that fails poisons its partition: the next append to it is told.
    """

    def __init__(self, background: Background, flush_ms: float | None, checkpoint: Callable[[], None]) -> None:
        self._background = background
        self._seconds = None if flush_ms is None else flush_ms / 1000
        self._checkpoint = checkpoint
        self._dirty: set[Partition] = set()
        self._flush_is_due = False
        self._checkpoint_is_due = False

    def note_append(self, partition: Partition, rolled: bool) -> None:
        """A batch was appended.  Thread-safe: each step is one on its own, and the flags are set after the set."""
        self._dirty.add(partition)
        if rolled and not self._checkpoint_is_due:
            self._checkpoint_is_due = True
            try:
                self._background.after(0, self._flush_and_checkpoint)
            except BaseException:  # Ctrl-C too
                self._checkpoint_is_due = False
                raise
        elif self._seconds is not None and not self._flush_is_due:
            self._flush_is_due = True
            try:
                self._background.after(self._seconds, self._flush)
            except BaseException:
                self._flush_is_due = False
                raise

    def finish(self) -> None:
        """The log is being closed: what is due later is done now, for those who stay would not know of it."""
        if self._seconds is not None:
            self._flush_dirty()

    def _flush(self) -> None:
        self._flush_is_due = False  # first: what is appended from here on asks anew
        self._flush_dirty()
        if not self._checkpoint_is_due:
            self._checkpoint_is_due = True
            self._background.after(CHECKPOINT_SECONDS, self._flush_and_checkpoint)

    def _flush_and_checkpoint(self) -> None:
        self._checkpoint_is_due = False
        self._flush_dirty()
        self._checkpoint()

    def _flush_dirty(self) -> None:
        failure: PylogError | None = None
        while self._dirty:
            try:
                self._dirty.pop().native.flush()
            except (ClosedError, UnknownTopicOrPartitionError):
                continue  # its topic was deleted meanwhile
            except PylogError as error:
                failure = error  # the other partitions are due all the same
        if failure is not None:
            raise failure
