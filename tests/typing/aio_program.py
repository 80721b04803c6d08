"""A user's program over most of pylog.aio: checked by mypy --strict as users' programs are, and run.

python aio_program.py DIRECTORY
"""

import asyncio
import contextlib
import queue
import sys
from typing import assert_type

from pylog import OffsetAndMetadata, Record, RecordMetadata, TopicPartition, aio

ORDERS = TopicPartition("orders", 0)


async def produce(log: aio.Log) -> None:
    """Send in each way there is."""
    async with log.producer(acks="all", value_serializer="json") as producer:
        place = await producer.send("orders", {"id": 1}, key=b"alice", headers=[("source", b"web")])
        assert_type(place, RecordMetadata)
        places = await asyncio.gather(*(producer.send("orders", {"id": number}) for number in range(2, 10)))
        assert_type(places, list[RecordMetadata])
        ranges = await producer.send_many("orders", [{"id": 10}, None], headers=[("source", b"file")])
        assert_type(ranges, dict[TopicPartition, list[range]])
        assert await producer.partitions_for("orders") == {0}
        await producer.flush()


async def consume(log: aio.Log) -> None:
    """Read by position, by time and by iteration."""
    async with log.consumer(group_id="billing", value_deserializer="json", consumer_timeout_ms=0) as consumer:
        consumer.subscribe(["orders"])
        polled = await consumer.poll(timeout_ms=10_000, max_records=5)
        assert_type(polled, dict[TopicPartition, list[Record]])
        await consumer.commit({ORDERS: OffsetAndMetadata(5, "half")})
        assert_type(await consumer.committed(ORDERS), int | None)
        assert_type(await consumer.committed(ORDERS, metadata=True), OffsetAndMetadata | None)
        assert_type(consumer.position(ORDERS), int)
        consumer.seek(ORDERS, 7)
        consumer.pause(ORDERS)
        consumer.resume(ORDERS)
        offsets = []
        async for record in consumer:
            assert_type(record, Record)
            offsets.append(record.offset)
        assert offsets == [7, 8, 9, 10]
        assert_type(consumer.end_offsets([ORDERS]), dict[TopicPartition, int])
    assert_type(await log.admin.list_groups(), list[str])
    assert [record.offset async for record in log.read("orders", 0, 0, 3)] == [0, 1, 2]


async def work(log: aio.Log) -> None:
    """Queues and workers."""
    async with log.queue("jobs", value_serializer="str", value_deserializer="str") as jobs:
        await jobs.put("one")
        await jobs.put_many(["two", "three"])
        async with await jobs.get(timeout=10) as message:
            assert_type(message, aio.Message)
            assert message.value == "one"
        await jobs.ack_many(await jobs.get_many(10))
        with contextlib.suppress(queue.Empty):
            await jobs.get(timeout=0)
        assert_type(await jobs.dead_letters.qsize(), int)

    async def handle(record: Record) -> None:
        if record.offset == 10:
            workers.stop()

    workers = log.workers(handle, "orders", group_id="crew", workers=100)
    await workers.run()


async def main(directory: str) -> None:
    """All of it."""
    async with aio.open(directory) as log:
        await produce(log)
        await consume(log)
        await work(log)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
