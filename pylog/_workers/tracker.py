"""Which records of a partition are unfinished, and what therefore can be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from .._types import OffsetAndMetadata, Record, TopicPartition
from .finished import encode_finished


class Tracker:
    """One owned partition.  The reader's thread uses it, and any thread calls `finish`.

    All offsets below `next` that are not unfinished are done with: finished, or never there (a control batch, a
    record that compaction has removed).  So memory follows what is in flight, however long one record holds the
    watermark back, and gaps hold nothing back.
    """

    def __init__(self, tp: TopicPartition, position: int, finished: Iterable[tuple[int, int]] = ()) -> None:
        self.tp = tp
        self.next = position
        self.revoked = False  # set by the reader before it purges the lanes
        self.committed: OffsetAndMetadata | None = None
        self._finished = deque(finished)  # of an earlier owner; those that end at or below `next` are dropped
        self._unfinished: dict[int, None] = {}  # ascending, for records come so; each call on it is atomic

    def take(self, records: Sequence[Record]) -> list[Record]:
        """Count these, the partition's next records, as in flight; those among them that are to be handled."""
        fresh = [record for record in records if not self._was_finished(record.offset)] if self._finished else records
        for record in fresh:
            self._unfinished[record.offset] = None
        if records:
            self.advance(records[-1].offset + 1)
        return list(fresh)

    def advance(self, position: int) -> None:
        """All records below `position` have been taken."""
        self.next = max(self.next, position)
        while self._finished and self._finished[0][1] <= self.next:
            self._finished.popleft()

    def finish(self, offset: int) -> None:
        """The record needs no more handling."""
        self._unfinished.pop(offset, None)

    def snapshot(self) -> OffsetAndMetadata:
        """What can be committed: the lowest unfinished offset, and what is finished above it."""
        unfinished = list(self._unfinished)
        edges = np.array([*unfinished, self.next])
        before = np.flatnonzero(np.diff(edges) > 1)
        runs = list(zip((edges[before] + 1).tolist(), edges[before + 1].tolist(), strict=True))
        for start, end in self._finished:
            if runs and runs[-1][1] >= start:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((max(start, self.next), end))
        watermark = int(edges[0])
        return OffsetAndMetadata(watermark, encode_finished(watermark, runs))

    def _was_finished(self, offset: int) -> bool:
        while self._finished and self._finished[0][1] <= offset:
            self._finished.popleft()
        return bool(self._finished) and self._finished[0][0] <= offset
