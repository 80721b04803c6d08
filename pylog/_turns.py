"""What a consumer reads: its partitions, and which of them may have something to hand out."""

from collections.abc import Collection

from . import _native
from ._partition import Partition, Reader
from ._types import Record


class Assigned:
    """A partition in the consumer's hands: a reader, and what it has read that was not yet handed out."""

    __slots__ = ("at", "buffered", "number", "partition", "paused", "reader")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.number = -1  # among the assigned
        self.reader: Reader | None = None  # None: the position is not decided yet
        self.buffered: list[Record] = []
        self.at = 0  # the next of buffered to hand out
        self.paused = False

    @property
    def position(self) -> int | None:
        """Offset of the next record; None: not decided yet."""
        if self.at < len(self.buffered):
            return self.buffered[self.at].offset
        return None if self.reader is None else self.reader.position

    def seek(self, reader: Reader) -> None:
        """Go on from this reader's position."""
        self.reader, self.buffered, self.at = reader, [], 0


class Turns:
    """Which partitions have, or may have, something to hand out; the others are at their end and cost nothing.

    A reader that comes to the end tells what its log had published by then.  A ring of the bell then costs one look at
    all those words, in C, and Python's time only for the partitions whose word has changed.
    """

    def __init__(self, shared: _native.Shared | None, assigned: Collection[Assigned]) -> None:
        self._all = list(assigned)
        for number, one in enumerate(self._all):
            one.number = number
        self._watch = _native.Watch(shared, len(self._all))
        self._lively = dict.fromkeys(self._all)
        self._turn = 0

    def take(self) -> list[Assigned]:
        """Those that are not paused, a different one first each time."""
        for number in self._watch.changed():
            self._lively[self._all[number]] = None
        ready = [assigned for assigned in self._lively if not assigned.paused]
        if len(ready) > 1:
            self._turn = (self._turn + 1) % len(ready)
            ready = ready[self._turn :] + ready[: self._turn]
        return ready

    def rest(self, assigned: Assigned, reader: Reader) -> None:
        """Its reader has come to the end."""
        slot, sequence = reader.end_seen
        if slot >= 0 and assigned in self._lively:
            self._watch.rest(assigned.number, slot, sequence)
            del self._lively[assigned]

    def only(self) -> Assigned | None:
        """The one partition that there is, if it rests and is not paused."""
        if len(self._all) != 1 or self._lively or self._all[0].paused:
            return None
        return self._all[0]

    def stir(self, assigned: Assigned) -> None:
        """It was sent elsewhere."""
        self._watch.stir(assigned.number)
        self._lively[assigned] = None
