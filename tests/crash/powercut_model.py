"""What a directory must hold after a power cut, and what it may hold besides: told by one child, checked by the next.

A record's value says who sent it as which: (generation, writer, sequence), a generation being one child process and the
sequence counting per writer and partition.  All else in the value follows from that, so a record is whole or it is not.
"""

from __future__ import annotations

import enum
import hashlib
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

HEAD = re.compile(rb"(\d+) (\d+) (\d+) ")
TOPIC = re.compile(r"t(\d+)")


class Kind(enum.IntEnum):
    """What a message says."""

    RECORD = 1  # after opening: this record was found
    FOUND_START = 2  # after opening: the partition begins at this offset
    VERIFIED = 3  # after opening: all is as it must be; the child waits for a byte before it changes anything
    ACKNOWLEDGED = 4
    FLUSHED = 5  # the log said that it is flushed up to this offset
    CREATING = 6  # a topic; `partition` is its number of partitions
    CREATED = 7
    DROPPING = 8
    DROPPED = 9
    TRIMMING = 10  # records below the offset are being deleted
    TRIMMED = 11
    CUT = 12  # written by the shim: the power goes now
    DONE = 13  # the child has nothing left to do


class Message(NamedTuple):
    """What a child tells by its pipe, in the bytes of MESSAGE: few enough for a write to be atomic."""

    kind: int
    topic: int = 0
    partition: int = 0
    generation: int = 0
    writer: int = 0
    sequence: int = 0
    offset: int = 0
    seconds: float = 0.0


MESSAGE = struct.Struct("=BIHIHIqd")


class Ident(NamedTuple):
    """Who sent a record, as which."""

    generation: int
    writer: int
    sequence: int


class LossError(Exception):
    """The directory does not hold what it must."""


def value_of(ident: Ident, bytes_max: int) -> bytes:
    """The value of a record: mostly small, some larger than a page, of bytes that differ everywhere."""
    head = b"%d %d %d " % ident
    scale, factor = hashlib.sha256(head).digest()[:2]
    bytes_wanted = min(factor * (1, 1, 1, 4, 4, 16, 64, 128)[scale % 8], bytes_max - len(head))
    return head + hashlib.shake_128(head).digest(max(bytes_wanted, 8))


def ident_of(value: bytes | None, bytes_max: int, where: str) -> Ident:
    """Who sent this; LossError unless it is whole."""
    match = HEAD.match(value or b"")
    if value is None or match is None:
        raise LossError(f"{where}: a record that nobody sent: {(value or b'')[:40]!r}")
    ident = Ident(int(match[1]), int(match[2]), int(match[3]))
    if value != value_of(ident, bytes_max):
        raise LossError(f"{where}: the record {ident} is not whole")
    return ident


@dataclass
class Acknowledged:
    """A record since the last opening, and when it was acknowledged; age_s: how long before the power went."""

    ident: Ident
    seconds: float
    age_s: float | None = None


@dataclass
class PartitionModel:
    """settled: found by an opening, so on the disk for good; their offsets begin at `base`."""

    base: int = 0
    settled: list[Ident] = field(default_factory=list)
    acknowledged: dict[int, Acknowledged] = field(default_factory=dict)
    flushed: int = 0
    start: int = 0
    starts_tried: set[int] = field(default_factory=set)

    @property
    def end(self) -> int:
        """Up to where records are settled."""
        return self.base + len(self.settled)


@dataclass
class Model:
    """All topics of a directory, by number."""

    value_bytes_max: int
    window_s: float | None = None  # None: what is acknowledged is on the disk
    topics: dict[int, int] = field(default_factory=dict)  # to their number of partitions
    creating: dict[int, int] = field(default_factory=dict)
    dropping: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    partitions: dict[tuple[int, int], PartitionModel] = field(default_factory=dict)
    found: dict[tuple[int, int], PartitionModel] = field(default_factory=dict)
    acknowledged_count: int = 0
    oldest_lost_s: float = 0.0
    lost_count: int = 0  # within the window

    def partition(self, topic: int, partition: int) -> PartitionModel:
        """The partition's model, new if need be."""
        return self.partitions.setdefault((topic, partition), PartitionModel())

    # -- the parent's side

    def note(self, messages: Iterable[Message], *, before_cut: bool) -> bool:
        """Take in what a child has told.  Behind the cut only beginnings count: they tell what may have happened.

        Returns whether the child has verified what it found.
        """
        verified = False
        for m in messages:
            place = (m.topic, m.partition)
            if m.kind == Kind.CREATING:
                self.creating[m.topic] = m.partition
            elif m.kind == Kind.DROPPING:
                self.dropping.add(m.topic)
            elif m.kind == Kind.TRIMMING:
                self.partition(*place).starts_tried.add(m.offset)
            elif not before_cut:
                continue
            elif m.kind == Kind.RECORD:
                self.found[place].settled.append(Ident(m.generation, m.writer, m.sequence))
            elif m.kind == Kind.FOUND_START:
                self.found[place] = PartitionModel(base=m.offset, start=m.offset)
            elif m.kind == Kind.VERIFIED:
                self._settle()
                verified = True
            elif m.kind == Kind.ACKNOWLEDGED:
                self.acknowledged_count += 1
                ident = Ident(m.generation, m.writer, m.sequence)
                self.partition(*place).acknowledged[m.offset] = Acknowledged(ident, m.seconds)
            elif m.kind == Kind.FLUSHED:
                self.partition(*place).flushed = max(self.partition(*place).flushed, m.offset)
            elif m.kind == Kind.CREATED:
                self.topics[m.topic] = m.partition
            elif m.kind == Kind.DROPPED:
                self.dropped.add(m.topic)
            elif m.kind == Kind.TRIMMED:
                self.partition(*place).start = max(self.partition(*place).start, m.offset)
        return verified

    def note_cut(self, seconds: float) -> None:
        """The power went at this moment.  Records that are still unverified from a cut before keep their age."""
        for partition in self.partitions.values():
            for record in partition.acknowledged.values():
                if record.age_s is None:
                    record.age_s = seconds - record.seconds

    def _must_be_there(self, record: Acknowledged) -> bool:
        # Without an age no power has gone since: only a process was killed, and that takes nothing.
        return self.window_s is None or record.age_s is None or record.age_s > self.window_s

    def _settle(self) -> None:
        for place, found in self.found.items():
            before = self.partitions.get(place, PartitionModel())
            for offset, record in before.acknowledged.items():
                if offset >= found.end:
                    self.lost_count += 1
                    self.oldest_lost_s = max(self.oldest_lost_s, record.age_s or 0.0)
        for topic in {topic for topic, _ in self.found}:
            self.topics.setdefault(topic, sum(place[0] == topic for place in self.found))
        for topic in [topic for topic in self.topics if (topic, 0) not in self.found]:
            self.dropped.add(topic)
        self.partitions, self.found = self.found, {}

    # -- the child's side

    def check_topics(self, names: dict[str, int]) -> None:
        """These topics were found, with so many partitions."""
        numbers = {}
        for name, partitions in names.items():
            match = TOPIC.fullmatch(name)
            if match is None:
                raise LossError(f"a topic that nobody made: {name!r}")
            numbers[int(match[1])] = partitions
        for topic, partitions in numbers.items():
            wanted = self.topics.get(topic, self.creating.get(topic))
            if wanted is None or topic in self.dropped:
                raise LossError(f"topic t{topic} is there, but was {'deleted' if wanted else 'never made'}")
            if partitions != wanted:
                raise LossError(f"topic t{topic} has {partitions} partitions, it was made with {wanted}")
        for topic in self.topics:
            if topic not in numbers and topic not in self.dropping:
                raise LossError(f"topic t{topic} is lost")

    def check_partition(
        self, place: tuple[int, int], start: int, end: int, records: Iterable[_Record], tell: Callable[[Message], None]
    ) -> None:
        """The partition was found to hold these records; tells them, so that they count as settled."""
        model = self.partitions.get(place, PartitionModel())
        where = f"t{place[0]}-{place[1]}"
        if start != model.start and not (start > model.start and start in model.starts_tried):
            raise LossError(f"{where}: begins at {start}; it must at {model.start}, may at {model.starts_tried}")
        if end < model.end or end < model.flushed:
            raise LossError(f"{where}: ends at {end}, settled up to {model.end}, flushed up to {model.flushed}")
        tell(Message(Kind.FOUND_START, *place, offset=start))
        expected = start
        next_sequence: dict[tuple[int, int], int] = {}
        for record in records:
            if record.offset != expected:
                raise LossError(f"{where}: offset {record.offset} where {expected} was to come")
            ident = ident_of(record.value, self.value_bytes_max, f"{where}@{expected}")
            if model.base <= expected < model.end and ident != model.settled[expected - model.base]:
                raise LossError(f"{where}@{expected}: {ident}, but it was {model.settled[expected - model.base]}")
            acknowledged = model.acknowledged.get(expected)
            if acknowledged is not None and acknowledged.ident != ident:
                raise LossError(f"{where}@{expected}: {ident}, but {acknowledged.ident} was acknowledged")
            sequence = next_sequence.get(ident[:2], ident.sequence if start > 0 else 0)
            if ident.sequence != sequence:
                raise LossError(f"{where}@{expected}: {ident}, but sequence {sequence} was to come")
            next_sequence[ident[:2]] = sequence + 1
            tell(Message(Kind.RECORD, *place, *ident))
            expected += 1
        if expected != end:
            raise LossError(f"{where}: ends at {expected} when read, but the log says {end}")
        lost = [
            (offset, behind)
            for offset, behind in sorted(model.acknowledged.items())
            if offset >= end and self._must_be_there(behind)
        ]
        if lost:
            offset, first = lost[0]
            raise LossError(
                f"{where}: ends at {end}; {len(lost)} acknowledged records are lost, the first {first.ident} at "
                f"{offset}, acknowledged {(first.age_s or 0) * 1000:.0f} ms before the cut"
            )


class _Record(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...
