"""A process that produces until it is killed.

Each record's value is its partition and its number there.  What is acknowledged is told on stdout, 16 bytes each:
partition and offset, packed "<qq", in the order of acknowledgement.  A liar tells them before it sends: the
control that a test of this kind must catch.
"""

import itertools
import os
import random
import struct

import pylog

ACKNOWLEDGED = struct.Struct("<qq")
PARTITIONS = 3


def value(partition: int, number: int) -> bytes:
    """What record `number` of the partition holds: its place, and a filling that follows from it."""
    return struct.pack("<qq", partition, number) + bytes([number % 251]) * (number * 7919 % 400)


def produce(directory: str, seed: int, liar: bool) -> None:
    """Produce for ever."""
    chance = random.Random(seed)
    log = pylog.open(directory, num_partitions=PARTITIONS, segment_bytes=20_000, index_interval_bytes=500, flush_ms=20)
    with log.consumer() as consumer:
        log.topic_for_sending("orders")
        tps = [pylog.TopicPartition("orders", number) for number in range(PARTITIONS)]
        next_number = [consumer.end_offsets([tp])[tp] for tp in tps]
    producers = [
        log.producer(acks=1, linger_ms=linger_ms, batch_size=batch_size, compression_type=codec)
        for linger_ms, batch_size, codec in ((0, 2000, None), (1, 300, None), (5, 5000, "lz4"))
    ]
    for step in itertools.count():
        partition = chance.randrange(PARTITIONS)
        count = chance.choice((1, 1, 3, 50))
        numbers = range(next_number[partition], next_number[partition] + count)
        next_number[partition] += count
        told = b"".join(ACKNOWLEDGED.pack(partition, number) for number in numbers)
        if liar:
            os.write(1, told)
        producer = producers[step % len(producers)]
        values = [value(partition, number) for number in numbers]
        if count == 1:
            offsets = [producer.send("orders", values[0], partition=partition).get().offset]
        else:
            (ranges,) = producer.send_many("orders", values, partition=partition).get().values()
            offsets = [offset for part in ranges for offset in part]
        assert offsets == list(numbers)
        if not liar:
            os.write(1, told)
        if step % 80 == 39:
            log.flush()
        if step % 80 == 79:
            log.admin.delete_records({tps[partition]: numbers[0] // 2})
