"""The process that the power is cut under: opens the directory, checks what is left of it, goes on writing."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from powercut_model import MESSAGE, TOPIC, Ident, Kind, Message, Model, value_of

import pylog
from pylog import TopicPartition

TOPICS_MAX = 7


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one child does."""

    path: Path
    generation: int
    seed: int
    acks: Any
    flush_ms: int | None
    topics_min: int
    writers: int = 1
    changing: bool = False  # topics come and go, old records are deleted, the log is closed and opened again
    pausing: bool = False
    steps: int | None = None  # for each writer; None: until the power goes
    topic_settings: dict[str, Any]


class Teller:
    """Writes messages into the pipe: one write each, so that each is there whole before the next thing is done."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, message: Message) -> None:
        """Returns when the message is in the pipe."""
        os.write(self.fd, MESSAGE.pack(*message))


def open_log(plan: Plan) -> pylog.Log:
    """Open the plan's directory; this recovers."""
    return pylog.open(plan.path, flush_ms=plan.flush_ms, auto_create_topics=False, **plan.topic_settings)


def verify(log: pylog.Log, model: Model, tell: Callable[[Message], None]) -> None:
    """Tell all that is there; LossError unless it is what must be there."""
    described = log.admin.describe_topics()
    model.check_topics({topic["name"]: len(topic["partitions"]) for topic in described})
    for topic in described:
        match = TOPIC.fullmatch(topic["name"])
        assert match is not None  # checked above
        for row in topic["partitions"]:
            place = (int(match[1]), row["partition"])
            start, end = row["start_offset"], row["end_offset"]
            span = TopicPartition(topic["name"], row["partition"])
            records = log.read(topic["name"], row["partition"], {span: start}, {span: end})
            model.check_partition(place, start, end, records, tell)
    tell(Message(Kind.VERIFIED))


def work(plan: Plan, log: pylog.Log, model: Model, tell: Callable[[Message], None]) -> None:
    """Write, and tell what was acknowledged, for plan.steps or until the power goes."""
    board = _Board(plan, log, model, tell)
    threads = [threading.Thread(target=board.run, args=(writer,)) for writer in range(plan.writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if board.failure is not None:
        raise board.failure
    board.log.close()


class _Board:
    """What the writers share."""

    def __init__(self, plan: Plan, log: pylog.Log, model: Model, tell: Callable[[Message], None]) -> None:
        self.plan, self.log, self.tell = plan, log, tell
        self.bytes_max = model.value_bytes_max
        self.failure: BaseException | None = None
        described = log.admin.describe_topics()
        self.topics = {int(topic["name"][1:]): len(topic["partitions"]) for topic in described}
        known = [*model.topics, *model.creating, *self.topics]
        self.next_topic = max(known, default=-1) + 1
        rng = random.Random(plan.seed)
        while len(self.topics) < plan.topics_min:
            self.create(rng)

    def run(self, writer: int) -> None:
        """One thread's work."""
        try:
            _Writer(self, writer).run()
        except BaseException as error:
            self.failure = error

    def create(self, rng: random.Random) -> None:
        """Make a topic."""
        topic, partitions = self.next_topic, rng.randint(1, 3)
        self.next_topic += 1
        self.tell(Message(Kind.CREATING, topic, partitions))
        self.log.admin.create_topic(f"t{topic}", partitions)
        self.tell(Message(Kind.CREATED, topic, partitions))
        self.topics[topic] = partitions

    def drop(self, rng: random.Random) -> None:
        """Delete a topic."""
        topic = rng.choice(list(self.topics))
        del self.topics[topic]
        self.tell(Message(Kind.DROPPING, topic))
        self.log.admin.delete_topics([f"t{topic}"])
        self.tell(Message(Kind.DROPPED, topic))

    def trim(self, rng: random.Random) -> None:
        """Delete a partition's oldest records."""
        topic = rng.choice(list(self.topics))
        row = rng.choice(self.log.admin.describe_topics([f"t{topic}"])[0]["partitions"])
        offset = rng.randint(row["start_offset"], row["end_offset"])
        self.tell(Message(Kind.TRIMMING, topic, row["partition"], offset=offset))
        self.log.admin.delete_records({TopicPartition(f"t{topic}", row["partition"]): offset})
        self.tell(Message(Kind.TRIMMED, topic, row["partition"], offset=offset))

    def reopen(self) -> None:
        """Close the log as a clean shutdown does, and open it again."""
        self.log.close()
        self.log = open_log(self.plan)


class _Writer:
    """One thread that sends, each thread with a producer of its own."""

    def __init__(self, board: _Board, writer: int) -> None:
        self.board, self.writer = board, writer
        self.rng = random.Random(f"{board.plan.seed} {writer}")
        self.sequences: dict[tuple[int, int], int] = {}
        self.new_producer()

    def new_producer(self) -> None:
        codecs: tuple[Literal["gzip", "lz4"] | None, ...] = (None, None, "lz4", "gzip")
        codec = self.rng.choice(codecs)
        self.producer = self.board.log.producer(acks=self.board.plan.acks, compression_type=codec, linger_ms=1)

    def run(self) -> None:
        plan, rng = self.board.plan, self.rng
        step = 0
        while plan.steps is None or step < plan.steps:
            step += 1
            if plan.changing and rng.random() < 0.08:
                self.change()
            else:
                topic = rng.choice(list(self.board.topics))
                self.send(topic, rng.randrange(self.board.topics[topic]), rng.random())
            if plan.pausing:
                self.tell_flushed()
                time.sleep(rng.choice((0, 0.001, 0.004)))

    def change(self) -> None:
        what = self.rng.randrange(4)
        if what == 0:
            self.board.reopen()
            self.new_producer()
        elif what == 1:
            self.board.trim(self.rng)
        elif len(self.board.topics) < TOPICS_MAX:
            self.board.create(self.rng)
        else:
            self.board.drop(self.rng)

    def send(self, topic: int, partition: int, how: float) -> None:
        name, place = f"t{topic}", (topic, partition)
        count = 1 if how < 0.7 else self.rng.randint(2, 12)
        first = self.sequences.get(place, 0)
        idents = [Ident(self.board.plan.generation, self.writer, first + i) for i in range(count)]
        self.sequences[place] = first + count
        values = [value_of(ident, self.board.bytes_max) for ident in idents]
        if count == 1:
            offsets = [self.producer.send(name, values[0], partition=partition).get().offset]
        elif how < 0.85:
            ranges = self.producer.send_many(name, values, partition=partition).get()
            offsets = [offset for part in ranges[TopicPartition(name, partition)] for offset in part]
        else:
            futures = [self.producer.send(name, value, partition=partition) for value in values]
            self.producer.flush()
            offsets = [future.get().offset for future in futures]
        now = time.monotonic()
        for ident, offset in zip(idents, offsets, strict=True):
            self.board.tell(Message(Kind.ACKNOWLEDGED, *place, *ident, offset=offset, seconds=now))

    def tell_flushed(self) -> None:
        tps = [TopicPartition(f"t{topic}", p) for topic, count in self.board.topics.items() for p in range(count)]
        for tp, offset in self.board.log.flushed_offsets(tps).items():
            self.board.tell(Message(Kind.FLUSHED, int(tp.topic[1:]), tp.partition, offset=offset))
