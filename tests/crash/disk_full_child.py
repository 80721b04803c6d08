"""What fills the disk: one process of disk_full.py's, told by a pipe what to do, telling what was acknowledged."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import pylog
from pylog import TopicPartition

TOPIC = "orders"
TRIES_WHILE_FULL = 5
SPARE_BYTES = 600_000
PATIENCE_SECONDS = 5
AFTERWARDS = 20  # records that must be accepted once there is room again


class WrongError(Exception):
    """Not what disk_full.py's promise says."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one fill goes."""

    data: Path
    acks: Literal[1, "all"]
    way: Literal["send", "batch", "many"]
    compression: str | None
    segment_bytes: int
    value_bytes: int
    partitions: int
    seed: int
    room: Literal["filler", "records", "topic", "kill"]


def value_of(worker: int, number: int, plan: Plan) -> bytes:
    """What record `number` of a worker holds; its length is any up to plan.value_bytes."""
    shuffled = random.Random(worker << 32 | number)
    return b"%d:%d:" % (worker, number) + shuffled.randbytes(shuffled.randrange(plan.value_bytes))


def check_full(error: BaseException) -> None:
    """Raise unless the error says that the disk is full, and which file met it."""
    if not isinstance(error, pylog.StorageError):
        raise WrongError(f"a full disk gave {error!r}") from error
    if error.errno != errno.ENOSPC or "No space left" not in str(error) or not error.filename:
        raise WrongError(f"a full disk gave {error!r}, file {error.filename!r}") from error


class Filler:
    """One worker and its open log."""

    def __init__(self, plan: Plan, worker: int) -> None:
        self.plan = plan
        self.worker = worker
        self.partition = worker % plan.partitions
        self.tp = TopicPartition(TOPIC, self.partition)
        self.acknowledged: dict[int, int] = {}  # offset -> number
        self.start = 0
        self.next = 0
        self.log: pylog.Log
        self.producer: Any

    def open(self) -> None:
        """Open and, if that goes, make the topics."""
        plan = self.plan
        log = pylog.open(plan.data, segment_bytes=plan.segment_bytes, index_interval_bytes=256)
        try:
            log.admin.create_topic("spare", exist_ok=True, segment_bytes=1 << 20)
            log.producer().send("spare", bytes(SPARE_BYTES)).get()
            log.admin.create_topic(TOPIC, plan.partitions, exist_ok=True)
        except BaseException:
            log.close()
            raise
        self.log = log
        self.producer = log.producer(acks=plan.acks, compression_type=plan.compression, batch_size=16_384)

    def put(self) -> None:
        """One step; what it acknowledges is noted, whatever of it fails."""
        way = self.plan.way
        numbers = list(range(self.next, self.next + (1 if way == "send" else 40)))
        self.next = numbers[-1] + 1
        values = [value_of(self.worker, number, self.plan) for number in numbers]
        if way == "many":
            placed = self.producer.send_many(TOPIC, values, partition=self.partition).get()
            offsets = [offset for part in placed.values() for run in part for offset in run]
            self.acknowledged.update(zip(offsets, numbers, strict=True))
            return
        failure: BaseException | None = None
        futures = [self.producer.send(TOPIC, value, partition=self.partition) for value in values]
        for number, future in zip(numbers, futures, strict=True):
            try:
                self.acknowledged[future.get().offset] = number
            except pylog.PylogError as error:
                failure = error
        if failure is not None:
            raise failure

    def fill(self) -> None:
        """Until the disk is full, and a few times more."""
        refused = 0
        while refused < TRIES_WHILE_FULL:
            try:
                self.put()
            except pylog.PylogError as error:
                check_full(error)
                refused += 1

    def look(self) -> None:
        """What was acknowledged is there, by the handle that met the full disk."""
        check(self.log, self.plan, self.tp, {o: (self.worker, n) for o, n in self.acknowledged.items()}, self.start)

    def make_room(self) -> bool:
        """As an administrator would, in the full state; whether there was anything to delete."""
        admin = self.log.admin
        segments = admin.describe_topics([TOPIC])[0]["partitions"][self.partition]["segments"]
        if self.plan.room == "records" and len(self.acknowledged) > 1 and segments > 24:
            self.start = sorted(self.acknowledged)[len(self.acknowledged) // 2]
            patiently(lambda: admin.delete_records({self.tp: self.start}))
            return True
        if self.plan.room == "topic" and self.worker == 0:
            patiently(lambda: admin.delete_topics(["spare"]))
            return True
        return False

    def go_on(self) -> None:
        """There is room: appends are accepted again, by the same handle."""
        for _ in range(AFTERWARDS):
            number = self.next
            self.next += 1
            value = value_of(self.worker, number, self.plan)
            placed = patiently(lambda value=value: self.producer.send(TOPIC, value, partition=self.partition).get())
            self.acknowledged[placed.offset] = number


def patiently(call: Callable[[], Any]) -> Any:
    """What was deleted takes room until every other process has seen that it is gone."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except pylog.PylogError as error:
            check_full(error)
            if time.monotonic() > until:
                raise
        time.sleep(0.01)


def check(
    log: pylog.Log, plan: Plan, tp: TopicPartition, acknowledged: dict[int, tuple[int, int]], start: int = 0
) -> None:
    """Offsets are dense, each record is whole, and what was acknowledged from `start` on is where it was put."""
    found: dict[int, tuple[int, int]] = {}
    for record in log.read(*tp) if TOPIC in log.admin.list_topics() else ():
        if found and record.offset - 1 not in found:
            raise WrongError(f"{tp}: offset {record.offset} comes after {max(found)}")
        worker, number, _ = record.value.split(b":", 2)
        if record.value != value_of(int(worker), int(number), plan):
            raise WrongError(f"{tp}: record {record.offset} holds other bytes than were sent")
        found[record.offset] = (int(worker), int(number))
    if len(set(found.values())) != len(found):
        raise WrongError(f"{tp}: a record is there twice")
    lost = [offset for offset, name in acknowledged.items() if offset >= start and found.get(offset) != name]
    if lost:
        raise WrongError(f"LOST: {tp}: {len(lost)} acknowledged records, the first at offset {min(lost)}")


def work(plan: Plan, worker: int, pipe: Connection) -> None:
    """A child's whole life; tells (what it comes to, what was acknowledged, the log start it made)."""
    filler = Filler(plan, worker)

    def told_aside(args: Any) -> None:
        try:
            check_full(args.exc_value)  # what the background thread could not write down
        except WrongError:
            traceback.print_exc()
            os._exit(1)

    threading.excepthook = told_aside
    while True:
        try:
            filler.open()
            break
        except pylog.PylogError as error:
            check_full(error)
            pipe.send(("full at open", {}, 0))
            pipe.recv()
    pipe.send(("open", {}, 0))
    pipe.recv()
    filler.fill()
    filler.look()
    pipe.send(("full", filler.acknowledged, 0))
    order = pipe.recv()
    made = order == "make room" and filler.make_room()
    pipe.send(("room" if made else "no room", {}, filler.start))
    filler.start = pipe.recv()
    filler.go_on()
    filler.look()
    try:
        filler.producer.close()
    except pylog.StorageError as error:
        check_full(error)  # of a batch whose future told of another one
    filler.log.close()
    pipe.send(("done", filler.acknowledged, filler.start))
