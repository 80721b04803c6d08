"""confluent-kafka as a peer, against the broker that librdkafka keeps in memory for tests."""
# ruff: noqa: D102 - a peer's methods are Peer's, documented there

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from benchmarks.peers import Peer


class ConfluentMock(Peer):
    """Nothing reaches a disk, and the client, the broker and the network between them share the machine's cores.

    That broker keeps 5 MiB of a partition and makes 4 partitions a topic, so the values go into as many partitions as
    it takes to keep them all. Reading starts once a first message has come: neither connecting nor making topics is in
    the figures.
    """

    name = "confluent-kafka, mock broker"
    partition_bytes_kept: ClassVar[int] = 4 << 20  # of the broker's 5 MiB, the rest being its framing
    topic_partitions: ClassVar[int] = 4
    timeout_seconds: ClassVar[float] = 30.0
    consume_messages: ClassVar[int] = 500  # more a call measured slower

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        self.producer = Producer(
            {
                "test.mock.num.brokers": 1,
                "log_level": 0,
                "acks": 1,
                "linger.ms": 5,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
            }
        )
        brokers = self.producer.list_topics(timeout=self.timeout_seconds).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self.produced = 0
        self.partition_count = 0
        self.consumer: Consumer | None = None
        self.head: Sequence[Message] = ()

    def before_produce(self, values: list[bytes]) -> None:
        for topic in {topic for topic, _, _ in self._placed(values)}:
            self.producer.list_topics(topic, timeout=self.timeout_seconds)  # asking for a topic makes it

    def produce_one_by_one(self, values: list[bytes]) -> None:
        produce, poll = self.producer.produce, self.producer.poll
        for topic, partition, part in self._placed(values):
            for value in part:
                while True:
                    try:
                        produce(topic, value, partition=partition)
                        break
                    except BufferError:
                        poll(0.01)
        self._flush(len(values))

    def produce_batches(self, values: list[bytes]) -> None:
        for topic, partition, part in self._placed(values):
            for start in range(0, len(part), self.batch_records):
                messages = [{"value": value} for value in part[start : start + self.batch_records]]
                taken = self.producer.produce_batch(topic, messages, partition=partition)
                if taken != len(messages):
                    raise BufferError(f"{topic}-{partition}: {taken} of {len(messages)} messages taken")
        self._flush(len(values))

    def _placed(self, values: list[bytes]) -> Iterator[tuple[str, int, list[bytes]]]:
        record_bytes = max(map(len, values)) + 16
        records_max = max(1, self.partition_bytes_kept // record_bytes)
        for index, start in enumerate(range(0, len(values), records_max)):
            self.partition_count = index + 1
            yield *self._place(index), values[start : start + records_max]

    def _place(self, index: int) -> tuple[str, int]:
        return f"mock{index // self.topic_partitions}", index % self.topic_partitions

    def _flush(self, count: int) -> None:
        left = self.producer.flush(self.timeout_seconds)
        if left:
            raise TimeoutError(f"{left} messages not delivered within {self.timeout_seconds} s")
        self.produced += count

    def count(self) -> int:
        consumer = self.consumer or self._connect()
        records = 0
        for partition in self._partitions():
            first, end = consumer.get_watermark_offsets(partition, timeout=self.timeout_seconds)
            records += end - first
        return records

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(*self._place(index), OFFSET_BEGINNING) for index in range(self.partition_count)]

    def _connect(self) -> Consumer:
        self.consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "log_level": 0,
                "group.id": "benchmark",
                "enable.auto.commit": False,
                "queued.min.messages": 1_000_000,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 1,
            }
        )
        return self.consumer

    def before_consume(self) -> None:
        consumer = self._connect()
        consumer.assign(self._partitions())
        self.head = consumer.consume(1, self.timeout_seconds)
        if len(self.head) != 1:
            raise TimeoutError(f"no message within {self.timeout_seconds} s")

    def chunks(self) -> Iterator[list[bytes]]:
        for messages in self._messages():
            yield [value for message in messages if (value := message.value()) is not None]

    def iterate(self) -> int:
        records = 0
        for messages in self._messages():
            for message in messages:
                _touched = message.offset(), message.key(), message.value()
                records += 1
        return records

    def _messages(self) -> Iterator[Sequence[Message]]:
        if self.consumer is None:
            raise RuntimeError("before_consume() was not called")
        yield self.head
        left = self.produced - len(self.head)
        while left > 0:
            # Asking for more than there is would wait for the whole timeout.
            messages = self.consumer.consume(min(self.consume_messages, left), self.timeout_seconds)
            if not messages:
                raise TimeoutError(f"{left} messages missing after {self.timeout_seconds} s")
            left -= len(messages)
            yield messages

    def close(self) -> None:
        if self.consumer is not None:
            self.consumer.close()
