"""A log driven at random against plain lists.

For each partition the model knows the records in the order sent, and how many of them must be there (acknowledged, or
seen once).  What is buffered may be there or not, but as a prefix, and only a death of the process may lose it.
PYLOG_MODEL_EXAMPLES is the number of runs.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import pylog
from pylog import TopicPartition, _open_logs
from pylog._native import murmur2

TOPICS = ("orders", "events-1", "a.b_c")
NOW = range(1_700_000_000_000, 1_700_000_000_200)

fields = st.none() | st.binary(max_size=40) | st.binary(min_size=200, max_size=600)
keys = st.none() | st.binary(max_size=6)
headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
times = st.integers(NOW.start, NOW.stop - 1)
fractions = st.floats(0, 1)


class Sent(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


class Model:
    """What one partition must hold."""

    def __init__(self) -> None:
        self.records: list[Sent] = []
        self.acknowledged = 0
        self.start = 0


def seen(record: Any) -> Sent:
    return Sent(record.key, record.value, tuple(record.headers), record.timestamp)


def die(log: pylog.Log) -> None:
    """Leave the directory as a process does that is killed: nothing is written any more."""
    log.background.stop()
    for handle in list(log._handles):
        handle.mark_forked(pylog.ClosedError)
    log._give_up()
    log.membership.abandon()
    _open_logs.open_logs.discard(log)


class LogMachine(RuleBasedStateMachine):
    @initialize(segment_bytes=st.sampled_from([1000, 3000, 1 << 20]), interval=st.sampled_from([0, 300, 4096]))
    def begin(self, segment_bytes: int, interval: int) -> None:
        memory = Path("/dev/shm")  # fsync costs nothing there, and nothing here is about power cuts
        self.path = tempfile.mkdtemp(prefix="pylog-model-", dir=memory if memory.is_dir() else None)
        self.options = {"segment_bytes": segment_bytes, "index_interval_bytes": interval}
        self.models: dict[TopicPartition, Model] = {}
        self.open()
        self.make_topic("orders", 2)

    def open(self) -> None:
        self.log = pylog.open(self.path, flush_ms=None, **self.options)  # type: ignore[arg-type]
        self.producer = self.log.producer(linger_ms=1e9)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            shutil.rmtree(self.path)

    # -- helpers

    def choose(self, fraction: float) -> TopicPartition:
        return sorted(self.models)[min(int(fraction * len(self.models)), len(self.models) - 1)]

    def partitions(self, topic: str) -> int:
        return sum(tp.topic == topic for tp in self.models)

    def all_there(self, *tps: TopicPartition) -> None:
        for tp in tps or self.models:
            self.models[tp].acknowledged = len(self.models[tp].records)

    def check(self, tp: TopicPartition) -> list[Sent]:
        """Read the partition; it must hold what the model says.  All its records, deleted ones from the model."""
        model = self.models[tp]
        read = list(self.log.read(*tp))
        assert [record.offset for record in read] == list(range(model.start, model.start + len(read)))
        end = model.start + len(read)
        assert model.acknowledged <= end <= len(model.records)
        assert [seen(record) for record in read] == model.records[model.start : end]
        model.acknowledged = end
        return model.records[:end]

    # -- topics

    @rule(topic=st.sampled_from(TOPICS), partitions=st.integers(1, 3))
    def make_topic(self, topic: str, partitions: int) -> None:
        """Make it, or add partitions to it."""
        there = self.partitions(topic)
        if there == 0:
            self.log.admin.create_topic(topic, partitions)
        elif partitions > there:
            self.log.admin.create_partitions({topic: partitions})
        for number in range(there, partitions):
            self.models[TopicPartition(topic, number)] = Model()

    # -- sending

    @rule(
        codec=st.sampled_from([None, None, "gzip", "snappy", "lz4", "zstd"]),
        batch_size=st.sampled_from([0, 300, 1000, 262_144]),
        acks=st.sampled_from([0, 1, "all"]),
    )
    def change_producer(self, codec: Any, batch_size: int, acks: Any) -> None:
        self.producer.close()
        self.all_there()
        self.producer = self.log.producer(compression_type=codec, batch_size=batch_size, acks=acks, linger_ms=1e9)

    @rule(where=fractions, key=keys, value=fields, headers=headers, timestamp=st.none() | times, asks=st.booleans())
    def send(self, where: float, key: Any, value: Any, headers: Any, timestamp: int | None, asks: bool) -> None:
        tp, by_key = self.choose(where), key is not None
        if by_key:
            tp = TopicPartition(tp.topic, (murmur2(key) & 0x7FFFFFFF) % self.partitions(tp.topic))
        before = time.time_ns() // 1_000_000
        future = self.producer.send(
            tp.topic, value, key, headers, partition=None if by_key else tp.partition, timestamp_ms=timestamp
        )
        if timestamp is None:
            timestamp = future.timestamp
            assert before <= timestamp <= time.time_ns() // 1_000_000
        model = self.models[tp]
        model.records.append(Sent(key, value, tuple(headers), timestamp))
        if asks:
            metadata = future.get()
            assert metadata[:2] == tp
            assert metadata.offset in (-1, len(model.records) - 1)  # -1: acks=0 has not asked
            if metadata.offset >= 0:
                self.all_there(tp)

    @rule(where=fractions, rows=st.lists(st.tuples(keys, fields, times), max_size=30), headers=headers)
    def send_many(self, where: float, rows: Any, headers: Any) -> None:
        tp = self.choose(where)
        self.producer.send_many(
            tp.topic,
            [value for _, value, _ in rows],
            [key for key, _, _ in rows],
            timestamps_ms=[timestamp for _, _, timestamp in rows],
            headers=headers,
            partition=tp.partition,
        )
        self.models[tp].records += [Sent(key, value, tuple(headers), timestamp) for key, value, timestamp in rows]

    @rule(where=fractions, rows=st.lists(st.tuples(times, st.binary(min_size=5, max_size=5)), min_size=1, max_size=30))
    def send_columns(self, where: float, rows: Any) -> None:
        tp = self.choose(where)
        values = np.array([value for _, value in rows], "V5")
        stamps = np.array([timestamp for timestamp, _ in rows], np.int64)
        sent = self.producer.send_columns(tp.topic, values, timestamps_ms=stamps, partition=tp.partition)
        model = self.models[tp]
        model.records += [Sent(None, value, (), timestamp) for timestamp, value in rows]
        assert sent.get() == {tp: [range(len(model.records) - len(rows), len(model.records))]}
        self.all_there(tp)

    @rule()
    def flush(self) -> None:
        self.producer.flush()
        self.all_there()

    @rule()
    def flush_log(self) -> None:
        self.log.flush()
        self.all_there()
        assert self.log.flushed_offsets(list(self.models)) == {
            tp: len(model.records) for tp, model in self.models.items()
        }

    # -- ending

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.all_there()
        self.open()

    @rule()
    def die_and_reopen(self) -> None:
        die(self.log)
        self.open()
        for tp, model in self.models.items():
            model.records = self.check(tp)  # what was buffered is lost

    # -- deleting

    @rule(where=fractions, fraction=fractions)
    def delete_records(self, where: float, fraction: float) -> None:
        tp = self.choose(where)
        model, there = self.models[tp], len(self.check(self.choose(where)))
        before = int(fraction * there)
        self.log.admin.delete_records({tp: before})
        model.start = max(model.start, before)

    # -- reading

    @rule(where=fractions, first=fractions, last=fractions)
    def read_and_scan_a_part(self, where: float, first: float, last: float) -> None:
        tp = self.choose(where)
        model, there = self.models[tp], len(self.check(self.choose(where)))
        start = model.start + int(first * (there - model.start))
        end = int(last * (there + 3))
        expected = model.records[start : max(min(end, there), start)]
        assert [seen(record) for record in self.log.read(*tp, start, end)] == expected
        chunks = list(self.log.scan(*tp, start, end))
        assert [value for chunk in chunks for value in chunk.value.tolist()] == [sent.value for sent in expected]
        assert [key for chunk in chunks for key in chunk.key.tolist()] == [sent.key for sent in expected]
        assert [at for chunk in chunks for at in chunk.timestamp.tolist()] == [sent.timestamp for sent in expected]

    @rule(where=fractions, first=fractions, sizes=st.lists(st.integers(0, 7), max_size=6))
    def consume(self, where: float, first: float, sizes: list[int]) -> None:
        """Seek, then read by polls of these sizes; 0: one record by iteration."""
        tp = self.choose(where)
        model, there = self.models[tp], len(self.check(self.choose(where)))
        at = model.start + int(first * (there - model.start))
        with self.log.consumer(consumer_timeout_ms=0) as consumer:
            consumer.assign([tp])
            consumer.seek(tp, at)
            for size in sizes:
                if size == 0:
                    record = next(consumer, None)
                    found = [] if record is None else [record]
                else:
                    found = consumer.poll(max_records=size).get(tp, [])
                assert [seen(record) for record in found] == model.records[at : at + len(found)]
                assert bool(found) == (at < there)
                at += len(found)
                assert consumer.position(tp) == at
            rest = list(consumer)
            assert [seen(record) for record in rest] == model.records[at:there]

    @rule(where=fractions, timestamp=times | st.just(0) | st.just(2**62), like=st.none() | fractions)
    def look_for_a_time(self, where: float, timestamp: int, like: float | None) -> None:
        tp = self.choose(where)
        model, there = self.models[tp], len(self.check(self.choose(where)))
        if like is not None and there:
            timestamp = model.records[int(like * (there - 1))].timestamp
        expected = next(
            (
                (offset, model.records[offset].timestamp, -1)
                for offset in range(model.start, there)
                if model.records[offset].timestamp >= timestamp
            ),
            None,
        )
        with self.log.consumer() as consumer:
            assert consumer.offsets_for_times({tp: timestamp}) == {tp: expected}

    @invariant()
    def ends_agree(self) -> None:
        if not hasattr(self, "log"):
            return
        with self.log.consumer() as consumer:
            ends = consumer.end_offsets(list(self.models))
            starts = consumer.beginning_offsets(list(self.models))
        for tp, model in self.models.items():
            assert starts[tp] == model.start
            assert model.acknowledged <= ends[tp] <= len(model.records)


LogMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("PYLOG_MODEL_EXAMPLES", "150")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLogAgainstLists = LogMachine.TestCase
