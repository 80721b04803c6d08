"""The topics that pylog writes for a broker to read: settings, and how each is filled from a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pylog

from .kafka import Row

T0 = 1_760_000_000_000
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
SEEDS = [int(seed) for seed in os.environ.get("PYLOG_BROKER_SEEDS", "1").split(",")]
RECORDS = int(os.environ.get("PYLOG_BROKER_RECORDS", "100000"))
REOPENINGS = 6

SHAPES: dict[str, dict[str, Any]] = {
    **{f"one-{codec}": {} for codec in CODECS},
    **{f"many-{codec}": {"segment_bytes": 1 << 20, "index_interval_bytes": 512} for codec in CODECS},
    **{f"large-{codec}": {"segment_bytes": 1 << 20} for codec in CODECS},
    **{f"codec-of-topic-{codec}": {"compression_type": codec} for codec in CODECS[1:]},
    "rolled-ms": {"segment_ms": 60_000, "index_interval_bytes": 256},
    "rolled-index": {"index_interval_bytes": 1, "segment_index_bytes": 1024},
    "rolled-time-index": {"index_interval_bytes": 64, "segment_index_bytes": 240},
    "append-time": {"message_timestamp_type": "LogAppendTime", "index_interval_bytes": 256},
    "append-time-lz4": {"message_timestamp_type": "LogAppendTime", "compression_type": "lz4"},
    "big": {},
    "million": {},
    "columns": {},
    "empty": {},
    "times": {"index_interval_bytes": 64},
    "reopened": {"index_interval_bytes": 8192, "segment_ms": 60_000},
    "reopened-default": {},
    "deleted": {"segment_bytes": 1 << 20},
}
# Closed in the middle of a segment: a time entry more than an index that is built in one go.
REOPENED = ("reopened", "reopened-default")


def codec_of(topic: str) -> str:
    """The codec that a shape's batches have, but for those that it would not make smaller."""
    last = topic.rpartition("-")[2]
    return last if last in CODECS else "none"


def read(log: pylog.Log, topic: str) -> Iterator[Row]:
    """The records as pylog reads them, in the form that a real consumer's have here."""
    for record in log.read(topic, 0):
        headers = tuple(record.headers)
        yield record.offset, record.timestamp, record.timestamp_type, record.key, record.value, headers


def fill(data: Path, seed: int) -> tuple[dict[str, list[Row]], dict[str, list[int]]]:
    """Writes all topics.

    Returns what was sent to those topics for which it is all known beforehand, and the offsets at which those that are
    opened several times were closed.
    """
    random_source = random.Random(seed)
    sent: dict[str, list[Row]] = {}
    with pylog.open(data) as log:
        for topic, settings in SHAPES.items():
            log.admin.create_topic(topic, **settings)
        for codec in CODECS:
            _fill_codec(log, codec, random_source, sent)
        _fill_rolling(log, random_source, sent)
        _fill_rest(log, random_source)
    return sent, _fill_reopened(data, random_source, sent)


def _records(random_source: random.Random, count: int) -> list[tuple[bytes | None, bytes | None]]:
    def value() -> bytes | None:
        return random_source.choice(
            [
                None,
                b"",
                random_source.randbytes(random_source.randrange(300)),
                b"text " * random_source.randrange(1, 60),
            ]
        )

    return [(random_source.choice([None, b"", b"key-%d" % random_source.randrange(50)]), value()) for _ in range(count)]


def _fill_codec(log: pylog.Log, codec: str, random_source: random.Random, sent: dict[str, list[Row]]) -> None:
    config: Any = {"compression_type": None if codec == "none" else codec}
    with log.producer(**config) as producer:
        producer.send(f"one-{codec}", b"only", key=b"k", timestamp_ms=T0)
        sent[f"one-{codec}"] = [(0, T0, 0, b"k", b"only", ())]
        timestamp, rows = T0, sent.setdefault(f"many-{codec}", [])
        for offset, (key, value) in enumerate(_records(random_source, 2000)):
            timestamp += random_source.randrange(-5, 60)
            headers = (("h", b"%d" % offset), ("null", None), ("ключ", b""), ("h", b"again")) if offset % 7 == 0 else ()
            rows.append((offset, timestamp, 0, key, value, headers))
            producer.send(f"many-{codec}", value, key=key, timestamp_ms=timestamp, headers=headers)
            if random_source.random() < 0.05:
                producer.flush()
        values = [b"text %d " % (i % 97) * 20 + random_source.randbytes(200) for i in range(8_000)]
        producer.send_many(f"large-{codec}", values)
    if codec != "none":
        with log.producer() as producer:
            producer.send_many(f"codec-of-topic-{codec}", [b"text %d " % i * 20 for i in range(500)])


def _fill_rolling(log: pylog.Log, random_source: random.Random, sent: dict[str, list[Row]]) -> None:
    with log.producer() as producer:
        timestamp, rows = T0, sent.setdefault("rolled-ms", [])
        for offset, (key, value) in enumerate(_records(random_source, 800)):
            timestamp += random_source.randrange(0, 400)
            rows.append((offset, timestamp, 0, key, value, ()))
            producer.send("rolled-ms", value, key=key, timestamp_ms=timestamp)
            if random_source.random() < 0.2:
                producer.flush()
        # A time entry a batch: the last slot of the time index must stay free for the entry that ends it.
        for topic in ("rolled-index", "rolled-time-index"):
            for at, (key, value) in enumerate(_records(random_source, 300)):
                producer.send(topic, value, key=key, timestamp_ms=T0 + at).get()
        for topic in ("append-time", "append-time-lz4"):
            for at, (key, value) in enumerate(_records(random_source, 300)):
                producer.send(topic, value, key=key, timestamp_ms=T0 + at)
                if random_source.random() < 0.2:
                    producer.flush()
        # Times that stand still, go back, and jump ahead, but not by a segment's age.
        rows = sent.setdefault("times", [])
        for offset in range(400):
            timestamp = max(
                0, T0 + random_source.choice([0, 0, -(1 << 28), 1 << 28, random_source.randrange(-1000, 1000)])
            )
            rows.append((offset, timestamp, 0, None, b"%d" % offset, ()))
            producer.send("times", rows[-1][4], timestamp_ms=timestamp)
            if random_source.random() < 0.3:
                producer.flush()


def _fill_rest(log: pylog.Log, random_source: random.Random) -> None:
    import numpy as np

    with log.producer() as producer:
        producer.send("big", random_source.randbytes(1_000_000), key=random_source.randbytes(40_000)).get()
        values = [random_source.randbytes(100) for _ in range(1000)]
        for first in range(0, RECORDS, 100_000):
            producer.send_many("million", [values[at % 1000] for at in range(min(100_000, RECORDS - first))])
        numbers = np.arange(20_000, dtype=">i8")
        stamps = T0 + np.arange(20_000, dtype="i8")
        producer.send_columns("columns", numbers.view("V8"), keys=numbers.view("V8"), timestamps_ms=stamps)
        for _ in range(10):
            producer.send_many("deleted", [random_source.randbytes(4000) for _ in range(60)])
            producer.flush()
    log.admin.delete_records({pylog.TopicPartition("deleted", 0): 333})


def _fill_reopened(data: Path, random_source: random.Random, sent: dict[str, list[Row]]) -> dict[str, list[int]]:
    closed_at: dict[str, list[int]] = {topic: [] for topic in REOPENED}
    timestamps = dict.fromkeys(REOPENED, T0)
    for _ in range(REOPENINGS):
        with pylog.open(data) as log, log.producer() as producer:
            for topic in REOPENED:
                rows = sent.setdefault(topic, [])
                closed_at[topic].append(len(rows))
                for key, value in _records(random_source, random_source.randrange(200, 400)):
                    timestamps[topic] += random_source.randrange(-50, 230)
                    rows.append((len(rows), timestamps[topic], 0, key, value, ()))
                    producer.send(topic, value, key=key, timestamp_ms=timestamps[topic])
                    if random_source.random() < 0.2:
                        producer.flush()
    return closed_at
