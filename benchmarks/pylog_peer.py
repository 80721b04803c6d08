"""pylog as a peer, and what of it the other peers have no counterpart for.

``flush_ms=None`` leaves the moment of writing pages to the disk to the operating system, as it is for the peers; the
CRC of every batch is written and checked. acks is 1: handed to the page cache.
"""
# ruff: noqa: D102 - a peer's methods are Peer's, documented there

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

import pylog
from benchmarks.peers import Peer

TOPIC = "benchmark"
PARTITION = pylog.TopicPartition(TOPIC, 0)
POLL_MS = 1_000

Acks = Literal[0, 1, "all"]
Codec = Literal["gzip", "snappy", "lz4", "zstd"]


class Pylog(Peer):
    """One topic of one partition in a directory of its own."""

    name = "pylog"
    acks: ClassVar[Acks] = 1
    compression: ClassVar[Codec | None] = None

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        self.data = directory / "data"
        self.log = pylog.open(self.data, flush_ms=None)
        self.log.admin.create_topic(TOPIC, partitions=1)
        self.producer = self.log.producer(acks=self.acks, compression_type=self.compression)
        self.consumer = self.log.consumer()
        self.consumer.assign([PARTITION])

    def produce_one_by_one(self, values: list[bytes]) -> None:
        """``send`` for each value, then ``flush``."""
        send = self.producer.send
        for value in values:
            send(TOPIC, value)
        self.producer.flush()

    def produce_batches(self, values: list[bytes]) -> None:
        """``send_many`` of lists of ``batch_records`` values, then ``flush``."""
        send_many, step = self.producer.send_many, self.batch_records
        for start in range(0, len(values), step):
            send_many(TOPIC, values[start : start + step])
        self.producer.flush()

    def produce_whole_list(self, values: list[bytes]) -> None:
        """``send_many`` of all values at once, then ``flush``."""
        self.producer.send_many(TOPIC, values)
        self.producer.flush()

    def produce_columns(self, column: np.ndarray[Any, Any]) -> None:
        """``send_columns`` of all values at once, then ``flush``."""
        self.producer.send_columns(TOPIC, column)
        self.producer.flush()

    def count(self) -> int:
        return self.consumer.end_offsets([PARTITION])[PARTITION]

    def before_consume(self) -> None:
        self.consumer.seek_to_beginning(PARTITION)

    def chunks(self) -> Iterator[list[bytes]]:
        for columns in self.log.scan(TOPIC):
            yield _not_null(columns)

    def consume_by_poll_columns(self) -> int:
        """Every value as lists of bytes through ``Consumer.poll_columns``; the number of values."""
        records, end = 0, self.count()
        while records < end:
            polled = self.consumer.poll_columns(timeout_ms=POLL_MS)
            _require_progress(len(polled), records, end)
            for columns in polled:
                records += len(columns.value.tolist())
        return records

    def iterate(self) -> int:
        """Touch every record that ``Log.read`` gives; the number of records."""
        records = 0
        for record in self.log.read(TOPIC):
            _touched = record.offset, record.key, record.value
            records += 1
        return records

    def iterate_by_poll(self) -> int:
        """Touch every record that ``Consumer.poll`` gives, up to ``batch_records`` a call; the number of records."""
        records, end = 0, self.count()
        while records < end:
            polled = self.consumer.poll(timeout_ms=POLL_MS, max_records=self.batch_records)
            _require_progress(len(polled), records, end)
            for batch in polled.values():
                for record in batch:
                    _touched = record.offset, record.key, record.value
                    records += 1
        return records

    def iterate_consumer(self) -> int:
        """Touch every record that iterating the consumer gives; the number of records."""
        records, end = 0, self.count()
        for record in self.consumer:
            _touched = record.offset, record.key, record.value
            records += 1
            if records == end:
                break
        return records

    def scan_columns(self) -> int:
        """Read every record as columns without making Python objects of them; the number of records."""
        return sum(len(columns) for columns in self.log.scan(TOPIC))

    def log_files(self) -> list[Path]:
        """The topic's segment files, oldest first."""
        return sorted((self.data / f"{TOPIC}-0").glob("*.log"))

    def close(self) -> None:
        self.log.close()


class PylogDurable(Pylog):
    """acks="all": a record is acknowledged once it is on the disk."""

    name = 'pylog, acks="all"'
    acks = "all"


class PylogLz4(Pylog):
    """Batches compressed with lz4."""

    name = "pylog, lz4"
    compression = "lz4"


def fixed_width_column(values: list[bytes]) -> np.ndarray:
    """The values as one array of ``V<width>``; they must all be of one width."""
    (width,) = set(map(len, values))
    return np.frombuffer(b"".join(values), dtype=f"V{width}")


def _not_null(columns: pylog.Columns) -> list[bytes]:
    values: list[bytes] = columns.value.tolist()  # type: ignore[assignment]  # nothing here sends a null
    return values


def _require_progress(polled: int, records: int, end: int) -> None:
    if not polled:
        raise TimeoutError(f"{records} of {end} records polled, no more within {POLL_MS} ms")
