"""200 operations on a log, for syscalls.py to kill and to fail at each of their system calls.

They run in one thread, always in the same order: what pylog's background thread would do is done between them.  Nothing
is told by a system call that could be failed: the story is written into memory that the parent shares.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import struct
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pylog
from pylog import TopicPartition
from pylog._background import Background

OPERATIONS = 200
TPS = [TopicPartition(*tp) for tp in (("orders", 0), ("orders", 1), ("events", 0), ("late", 0), ("orders", 2))]
STORY_BYTES = 1 << 18
TEXT_AT = STORY_BYTES - 16384
ENTRY = struct.Struct("<iiiqI")
VALUE = struct.Struct("<III")  # number of the record, bytes of filling, sum of these two and the filling
# Kinds of entries. ONE, ALL: a record was acknowledged; TOPIC: a partition is there; DELETING: all below the offset is
# to go; DELETED: it went; OPENED and FAILED: an operation; BROKEN: it failed with something else than pylog's errors.
ONE, ALL, TOPIC, DELETING, DELETED, OPENED, FAILED, BROKEN = range(8)


class Told(NamedTuple):
    """One thing that the script told; `tp` counts in TPS, `crc` is of the record's value."""

    kind: int
    operation: int
    tp: int = 0
    offset: int = 0
    crc: int = 0


class Story:
    """What the script has told, in memory that outlives it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, STORY_BYTES)

    def clear(self) -> None:
        """Forget it all."""
        self._memory[:8] = bytes(8)
        self._memory[TEXT_AT] = 0

    def tell(self, told: Told) -> None:
        """One entry more."""
        (count,) = struct.unpack_from("<q", self._memory)
        ENTRY.pack_into(self._memory, 8 + count * ENTRY.size, *told)
        struct.pack_into("<q", self._memory, 0, count + 1)

    def __iter__(self) -> Iterator[Told]:
        (count,) = struct.unpack_from("<q", self._memory)
        return (Told(*ENTRY.unpack_from(self._memory, 8 + at * ENTRY.size)) for at in range(count))

    @property
    def text(self) -> str:
        """Of errors that are none of pylog's, and of the last one of pylog's."""
        return self._memory[TEXT_AT:].split(b"\0", 1)[0].decode(errors="replace")

    @text.setter
    def text(self, text: str) -> None:
        data = text.encode()[-(STORY_BYTES - TEXT_AT - 1) :] + b"\0"
        self._memory[TEXT_AT : TEXT_AT + len(data)] = data


def make_value(number: int) -> bytes:
    """What record `number` holds."""
    filling = bytes([number % 251]) * (number * 7919 % 300)
    crc = zlib.crc32(struct.pack("<II", number, len(filling)) + filling)
    return VALUE.pack(number, len(filling), crc) + filling


def number_of(value: bytes) -> int:
    """Which record that is; AssertionError where it is none."""
    number = VALUE.unpack_from(value)[0]
    assert value == make_value(number), f"a value that was never sent: {value[:40]!r}"
    return int(number)


def options() -> dict[str, Any]:
    """How the directory is opened; by the one who looks at it, too."""
    return {"flush_ms": 1000, "segment_bytes": 3000, "index_interval_bytes": 300}


def _mark(operation: int) -> None:
    """Tell the reader of the trace where we are, by a call that changes nothing."""
    with contextlib.suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, operation)


class Script:
    """The operations, one after the other, whatever becomes of those before."""

    def __init__(self, directory: Path, story: Story, *, liar: bool = False) -> None:
        self._directory, self._story, self._liar = directory, story, liar
        self._chance = random.Random(4)
        self._log: pylog.Log | None = None
        self._due: list[Callable[[], object]] = []
        self._operation = self._number = 0

    def run(self, operations: int = OPERATIONS, *, close: bool = True) -> None:
        """Do them all and close the log."""
        Background.after = lambda _, seconds, function: self._note_due(seconds, function)  # type: ignore[method-assign]
        for self._operation in range(operations):
            _mark(self._operation)
            self._try(self._step)
            while self._due:
                self._try(self._due.pop(0))
        self._operation = operations
        _mark(operations)
        if close:
            self._try(self._close)

    def _note_due(self, seconds: float, function: Callable[[], object]) -> None:
        if self._log is not None and (seconds == 0 or self._operation % 10 == 9):  # time passes now and then
            self._due.append(function)

    def _try(self, function: Callable[[], object]) -> None:
        try:
            function()
        except (pylog.PylogError, MemoryError) as error:
            self._story.tell(Told(FAILED, self._operation))
            self._story.text = f"{type(error).__name__}: {error}"
            if not str(error) and isinstance(error, pylog.PylogError):
                self._break()
        except BaseException:
            self._break()

    def _break(self) -> None:
        self._story.text = traceback.format_exc()
        self._story.tell(Told(BROKEN, self._operation))
        os._exit(1)

    def _step(self) -> None:
        at = self._operation
        if self._log is None:
            self._open()
        elif at % 67 == 66:
            self._close()
        elif at in (2, 30, 90):
            self._create({2: 0, 30: 2, 90: 3}[at])
        elif at == 120:
            self._log.admin.create_partitions({"orders": 3})
            self._story.tell(Told(TOPIC, at, 4))
        elif at % 25 == 20:
            self._delete()
        elif at % 10 == 7:
            self._log.flush()
        elif at % 10 == 4:
            self._read()
        else:
            self._send()

    def _open(self) -> None:
        self._log = pylog.open(self._directory, **options())
        self._one, self._all = self._log.producer(acks=1), self._log.producer(acks="all")
        self._story.tell(Told(OPENED, self._operation))

    def _close(self) -> None:
        log, self._log = self._log, None
        self._due.clear()
        if log is not None:
            log.close()

    def _create(self, at: int) -> None:
        assert self._log is not None
        name = TPS[at].topic
        partitions = 2 if name == "orders" else 1
        self._log.admin.create_topic(name, partitions, exist_ok=True)
        for partition in range(partitions):
            self._story.tell(Told(TOPIC, self._operation, TPS.index(TopicPartition(name, partition))))

    def _there(self) -> list[int]:
        assert self._log is not None
        topics = self._log.topics
        return [i for i, tp in enumerate(TPS) if tp.topic in topics and tp.partition < len(topics[tp.topic].partitions)]

    def _send(self) -> None:
        there = self._there()
        if not there:
            self._create(0)
            return
        at = self._chance.choice(there)
        count = self._chance.choice((1, 1, 2, 6))
        numbers = range(self._number, self._number + count)
        self._number += count
        values = [make_value(number) for number in numbers]
        kind, producer = (ALL, self._all) if self._chance.random() < 0.4 else (ONE, self._one)
        if self._liar:
            for value in values:
                self._story.tell(Told(kind, self._operation, at, -1, zlib.crc32(value)))
        tp = TPS[at]
        if count == 1:
            offsets = [producer.send(tp.topic, values[0], partition=tp.partition).get().offset]
        else:
            places = producer.send_many(tp.topic, values, partition=tp.partition).get()
            offsets = [offset for part in places[tp] for offset in part]
        for offset, value in zip(offsets, values, strict=True):
            self._story.tell(Told(kind, self._operation, at, offset, zlib.crc32(value)))

    def _delete(self) -> None:
        assert self._log is not None
        there = self._there()
        if not there:
            return
        with self._log.consumer() as consumer:
            tps = [TPS[at] for at in there]
            ends, starts = consumer.end_offsets(tps), consumer.beginning_offsets(tps)
        at = max(there, key=lambda at: ends[TPS[at]] - starts[TPS[at]])
        before = (starts[TPS[at]] + ends[TPS[at]]) // 2
        self._story.tell(Told(DELETING, self._operation, at, before))
        self._log.admin.delete_records({TPS[at]: before})
        self._story.tell(Told(DELETED, self._operation, at, before))

    def _read(self) -> None:
        assert self._log is not None
        for at in self._there():
            for record in self._log.read(*TPS[at]):
                number_of(record.value)
