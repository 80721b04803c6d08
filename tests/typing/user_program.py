"""A user's program over most of the public face: checked by mypy --strict as users' programs are, and run.

python user_program.py DIRECTORY
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import numpy as np

import pylog
from pylog import OffsetAndTimestamp, Record, RecordMetadata, TopicPartition

ORDERS = TopicPartition("orders", 0)


def by_length(topic: str, key: bytes | None, value: bytes | None, partitions: int) -> int:
    """A partitioner of one's own."""
    return len(topic + str(key)) * 0 + len(value or b"") % partitions


def produce(log: pylog.Log) -> RecordMetadata:
    """Send in each way there is."""
    seen: list[RecordMetadata] = []
    with log.producer(acks="all", linger_ms=2, compression_type="lz4", value_serializer="json") as producer:
        future = producer.send("orders", {"id": 1}, key=b"alice", headers=[("source", b"web"), ("trace", None)])
        future.add_callback(seen.append)
        future.add_errback(print)
        place = future.get(timeout=30)
        assert_type(place, RecordMetadata)
        assert future.done()
        assert future.exception() is None
        assert seen == [place]
    with pylog.Producer(log, acks=1, partitioner=by_length) as producer:
        many = producer.send_many("lines", [b"a", b"bb", None, b"cccc"], keys=[b"k", None, b"k", b"m"])
        ranges = many.result()
        assert_type(ranges, dict[TopicPartition, list[range]])
        assert sum(len(span) for spans in ranges.values() for span in spans) == 4
        assert producer.partitions_for("lines") == {0, 1}
    with log.producer(acks=0, partitioner="round_robin") as producer:
        producer.send("now", b"text", timestamp_ms=1_700_000_000_000, partition=0)
        numbers = np.arange(100, dtype=np.int64).view("S8")
        stamps = np.arange(100, dtype=np.int64)
        producer.send_columns("numbers", numbers, timestamps_ms=stamps, partition=0)
        producer.flush()
    return place


async def produce_and_await(producer: pylog.Producer) -> int:
    """Futures are awaited too."""
    place = await producer.send("orders", b"awaited")
    assert_type(place, RecordMetadata)
    return place.offset


def consume(log: pylog.Log) -> list[Record]:
    """Read by position, by time and by iteration."""
    with log.consumer(auto_offset_reset="earliest", max_poll_records=10, value_deserializer="json") as consumer:
        consumer.assign([ORDERS])
        batches = consumer.poll(timeout_ms=1000)
        assert_type(batches, dict[TopicPartition, list[Record]])
        consumer.seek(ORDERS, 0)
        consumer.seek_to_beginning()
        assert consumer.position(ORDERS) == 0
        consumer.pause(ORDERS)
        assert consumer.paused() == {ORDERS}
        consumer.resume(ORDERS)
        times = consumer.offsets_for_times({ORDERS: 0})
        assert_type(times, dict[TopicPartition, OffsetAndTimestamp | None])
        ends = consumer.end_offsets([ORDERS])
        assert_type(ends, dict[TopicPartition, int])
        assert consumer.beginning_offsets([ORDERS])[ORDERS] <= ends[ORDERS]
    with pylog.Consumer(log, "lines", consumer_timeout_ms=50, isolation_level="read_committed") as consumer:
        records = list(consumer)
        assert_type(records, list[Record])
        return records


def replay(log: pylog.Log) -> Iterator[str]:
    """Read without a consumer, from a time, with a deserializer."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for record in log.read("orders", start=yesterday, end="latest", value_deserializer="json"):
        assert_type(record.value, Any)
        yield f"{record.topic}-{record.partition} {record.offset}: {record.key} {record.value} {dict(record.headers)}"


def columns(log: pylog.Log) -> int:
    """Whole columns, as numpy arrays."""
    total = 0
    for part in log.scan("numbers", partition=0, start={TopicPartition("numbers", 0): 10}):
        assert_type(part, pylog.Columns)
        assert_type(part.value, pylog.BytesColumn)
        assert_type(part.value.tolist(), list[bytes | None])
        assert part.value[0] is not None
        assert len(part.headers()) == len(part)
        total += int(part.value.astype(np.int64).sum()) + int(part.offset[-1]) * 0
    return total


def administer(log: pylog.Log) -> None:
    """Topics and their settings."""
    settings: pylog.TopicConfig = {"segment_bytes": 1 << 20, "message_timestamp_type": "CreateTime"}
    log.admin.create_topic("orders", 1, exist_ok=True, **settings)
    log.admin.create_topic("lines", 1)
    log.admin.create_partitions({"lines": 2})
    log.admin.alter_configs("lines", retention_ms=86_400_000)
    assert log.admin.list_topics() == ["lines", "orders"]
    try:
        log.admin.create_topic("lines")
    except pylog.TopicAlreadyExistsError as error:
        assert_type(error.retriable, bool)


def main(directory: Path) -> None:
    """Everything once."""
    with pylog.open(directory, flush_ms=None, num_partitions=1, segment_bytes=1 << 20) as log:
        administer(log)
        place = produce(log)
        assert (place.topic, place.partition, place.offset) == ("orders", 0, 0)
        assert len(consume(log)) == 4
        assert len(list(replay(log))) == 1
        assert columns(log) == sum(range(10, 100))
        log.flush()
        assert log.flushed_offsets([ORDERS]) == {ORDERS: 1}
        log.admin.delete_topics(["now"])
    with pylog.open(directory, read_only=True) as log:
        try:
            next(iter(log.read("now")))
        except pylog.UnknownTopicOrPartitionError:
            print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
