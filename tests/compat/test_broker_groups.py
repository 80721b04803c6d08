"""Committed offsets go to and fro between a real broker and pylog: each answers what the other has committed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

import pylog
from pylog import OffsetAndMetadata, TopicPartition

from .kafka import Broker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("broker_tools")]

TOPIC, PARTITIONS, RECORDS = "work", 4, 100
Committed = dict[TopicPartition, int]


def consume(broker: Broker, group: str, protocol: str, count: int) -> None:
    """A real consumer of the broker reads so many records and commits."""
    settings = {
        "bootstrap.servers": broker.address,
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "log_level": 0,
    }
    with contextlib.closing(confluent_kafka.Consumer(settings)) as consumer:
        consumer.subscribe([TOPIC])
        for _ in range(count):
            message = consumer.poll(60)
            assert message is not None
            assert message.error() is None
        consumer.commit(asynchronous=False)


def answers(broker: Broker, group: str) -> Committed:
    """What the broker says that a group has committed."""
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    asked = [confluent_kafka.ConsumerGroupTopicPartitions(group)]
    found = admin.list_consumer_group_offsets(asked)[group].result(60).topic_partitions
    assert found is not None
    # Not the metadata: librdkafka gives more bytes than it has got.
    return {TopicPartition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def known(log: pylog.Log, group: str) -> Committed:
    """The same of pylog."""
    offsets = log.admin.describe_groups([group])[group]["offsets"]
    return {tp: offset.offset for tp, offset in offsets.items()}


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_each_goes_on_where_the_other_has_committed(tmp_path: Path, ends: str) -> None:
    broker = Broker(tmp_path / "data", tmp_path / "work")
    with broker:
        broker.create({TOPIC: (PARTITIONS, {})})
        producer = broker.producer()
        for at in range(RECORDS * PARTITIONS):
            producer.produce(TOPIC, b"%d" % at, partition=at % PARTITIONS)
        assert producer.flush(30) == 0
        consume(broker, "classic", "classic", 150)
        consume(broker, "modern", "consumer", 90)
        told = {group: answers(broker, group) for group in ("classic", "modern")}
        assert all(told.values())
        getattr(broker, ends)()

    with pylog.open(tmp_path / "data") as log:
        for group, offsets in told.items():
            assert known(log, group) == offsets
        with log.consumer(TOPIC, group_id="classic", enable_auto_commit=False) as consumer:
            consumer.poll(max_records=120)
            consumer.commit()
        with log.consumer(TOPIC, group_id="ours", enable_auto_commit=False) as consumer:
            consumer.poll()
            consumer.commit({TopicPartition(TOPIC, 1): OffsetAndMetadata(33, "by pylog")})
        log.admin.delete_groups(["modern"])
        left = {group: known(log, group) for group in ("classic", "ours")}
    assert sum(left["classic"].values()) == 150 + 120

    with broker:
        for group, offsets in left.items():
            assert answers(broker, group) == offsets
        assert answers(broker, "modern") == {}
        consume(broker, "classic", "classic", 130)
        assert sum(answers(broker, "classic").values()) == RECORDS * PARTITIONS
    with pylog.open(tmp_path / "data") as log:
        assert sum(known(log, "classic").values()) == RECORDS * PARTITIONS
        assert known(log, "ours") == left["ours"]
        with log.consumer(group_id="ours") as consumer:
            assert consumer.committed(TopicPartition(TOPIC, 1), metadata=True) == OffsetAndMetadata(33, "by pylog")
