"""A lane's records: waiting, held back behind one that failed, or in somebody's hands."""

from __future__ import annotations

import heapq
import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator

from .._types import Record
from .stop import Stop
from .tracker import Tracker


class Item:
    """A record on its way."""

    __slots__ = ("attempts", "number", "record", "tracker", "unit")

    def __init__(self, record: Record, tracker: Tracker, unit: Hashable) -> None:
        self.record = record  # as it lies in the log
        self.tracker = tracker
        self.unit = unit  # records that have it in common are handled one after the other
        self.attempts = 0  # that failed
        self.number = 0  # in the lane


class LaneQueue:
    """Thread-safe: the reader puts, workers take and settle.

    Who fails and is to be tried again is parked; what comes of its unit meanwhile is held back behind it, all others
    pass.  `wake` is called when there is room again after `put` said that there was none, and when a closed lane has
    nothing left.
    """

    def __init__(self, size: int, wake: Callable[[], object], stop: Stop) -> None:
        self._size = size
        self._wake = wake
        self._stop = stop
        # Guards all that follows; notified when there may be something to take, or nobody is waited for any more.
        self._changed = threading.Condition(threading.Lock())
        self._ready: deque[Item] = deque()
        self._held: dict[Hashable, list[Item]] = {}  # the first is the one that failed
        self._due: list[tuple[float, int, Hashable]] = []  # a heap: when a unit of _held goes on
        self._running: set[Item] = set()
        self._count = 0  # ready, held and running
        self._numbers = itertools.count()
        self._wanted = False  # the reader waits for room
        self._awaited = False  # the reader waits for running ones
        self._closed = False
        self.told: Callable[[], object] | None = None  # for an event loop: called, by any thread, whenever takers are

    # -- the reader's side

    def put(self, items: Iterable[Item]) -> bool:
        """Append; whether more may come.  What it is given it takes."""
        with self._changed:
            before = len(self._ready)
            for item in items:
                item.number = next(self._numbers)
                self._ready.append(item)
            added = len(self._ready) - before
            self._count += added
            self._tell_takers(added)
            self._wanted = self._count >= self._size
            return not self._wanted

    def has_room(self) -> bool:
        """Whether it is half empty, after it was full."""
        return self._count <= self._size // 2

    def is_idle(self) -> bool:
        """Whether there is nothing in it, and nothing in anybody's hands."""
        return self._count == 0

    def purge(self) -> None:
        """Drop what is not in anybody's hands and belongs to revoked partitions."""
        self._drop(lambda item: item.tracker.revoked)

    def wait_for_running(self, which: Callable[[Item], bool]) -> None:
        """Wait until none of these is in anybody's hands."""
        with self._changed:
            self._awaited = True
            while any(which(item) for item in self._running):
                self._changed.wait()
            self._awaited = False

    def close(self) -> None:
        """Hand out what is there, or nothing if the stop is one without drain; then tell who takes that it is over."""
        if not self._stop.drain:
            self._drop(lambda _: True)
        with self._changed:
            self._closed = True
            self._tell_takers()

    def _drop(self, which: Callable[[Item], bool]) -> None:
        def kept(items: Iterable[Item]) -> Iterator[Item]:
            return (item for item in items if not which(item))

        with self._changed:
            self._ready = deque(kept(self._ready))
            self._held = {unit: left for unit, items in self._held.items() if (left := list(kept(items)))}
            self._due = [due for due in self._due if due[2] in self._held]
            heapq.heapify(self._due)
            self._count = len(self._ready) + sum(map(len, self._held.values())) + len(self._running)
            self._tell_takers()

    def _tell_takers(self, items: int | None = None) -> None:
        if items is None:
            self._changed.notify_all()
        else:
            self._changed.notify(items)
        if self.told is not None:
            self.told()

    # -- the workers' side

    def take(self, timeout: float | None = None) -> Item | None:
        """The next record, in the caller's hands from now on; None: it is over.  Raises queue.Empty on timeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._stop.drain:
                seconds = self._release_due()
                item = self._next()
                if item is not None:
                    return item
                if self._closed and not self._held:
                    return None
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise queue.Empty
                    seconds = left if seconds is None else min(left, seconds)
                self._changed.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
            return None

    def seconds_to_due(self) -> float:
        """How long until a record that failed is to be taken again."""
        with self._changed:
            return max(0.0, self._due[0][0] - time.monotonic()) if self._due else math.inf

    def finish(self, item: Item) -> None:
        """It needs no more handling."""
        item.tracker.finish(item.record.offset)
        self.let_go(item)

    def let_go(self, item: Item) -> None:
        """It is out of the caller's hands, finished or not."""
        with self._changed:
            self._running.discard(item)
            self._count -= 1
            is_wake_up = self._settled()
        if is_wake_up:
            self._wake()

    def park(self, item: Item, seconds: float) -> None:
        """It failed: hand it out again in so many seconds, and nothing of its unit before."""
        is_wake_up = False
        with self._changed:
            self._running.discard(item)
            if item.tracker.revoked or not self._stop.drain:
                self._count -= 1
                is_wake_up = self._settled()
            elif item.unit in self._held:  # two of a unit were in somebody's hands
                self._held[item.unit].append(item)
                self._held[item.unit].sort(key=lambda one: one.number)
            else:
                self._held[item.unit] = [item]
                heapq.heappush(self._due, (time.monotonic() + seconds, item.number, item.unit))
            self._tell_takers()
        if is_wake_up:
            self._wake()

    def _settled(self) -> bool:
        """One less; whether the reader is to be told."""
        if self._awaited:
            self._changed.notify_all()
        if self._wanted and self.has_room():
            self._wanted = False
            return True
        return self._closed and self._count == 0

    def _release_due(self) -> float | None:
        """Put what is due to the front; in how many seconds the next is."""
        while self._due:
            left = self._due[0][0] - time.monotonic()
            if left > 0:
                return left
            unit = heapq.heappop(self._due)[2]
            self._ready.extendleft(reversed(self._held.pop(unit)))
        return None

    def _next(self) -> Item | None:
        while self._ready:
            item = self._ready.popleft()
            held = self._held.get(item.unit) if self._held else None
            if held is None:
                self._running.add(item)
                return item
            held.append(item)
        return None
