"""Python and the engine meet once per batch, never once per record."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition, _native

RECORDS = 20_000
ZERO = TopicPartition("orders", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function of the engine is called, and each function that makes objects in bulk."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    for name in ("append", "fetch", "flush", "state", "find_time"):
        count(_native.NativeLog, name)
    for name in ("decode_chunk", "decode_block", "records"):
        count(_native, name)
    return counted


def batch_count(log: pylog.Log) -> int:
    """Batches in the log, by walking its bytes."""
    count = 0
    for path in (log.directory.partition_path(ZERO)).glob("*.log"):
        data, at = path.read_bytes(), 0
        while (header := _native.parse_batch(data, at)) is not None:
            count += 1
            at += header.batch_bytes
    return count


@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_sending_calls_the_engine_once_per_batch(how: str, codec: Any, log: pylog.Log, calls: Counter[str]) -> None:
    log.admin.create_topic("orders")
    with log.producer(compression_type=codec, linger_ms=60_000) as producer:
        if how == "send":
            for _ in range(RECORDS):
                producer.send("orders", bytes(100))
        elif how == "send_many":
            producer.send_many("orders", [bytes(100)] * RECORDS)
        else:
            producer.send_columns("orders", np.zeros(RECORDS, "V100"))
    assert calls["append"] == batch_count(log) < RECORDS / 1000


def test_acks_all_flushes_no_more_often_than_it_appends(log: pylog.Log, calls: Counter[str]) -> None:
    with log.producer(acks="all", linger_ms=60_000) as producer:
        for _ in range(RECORDS):
            producer.send("orders", bytes(100))
    assert calls["flush"] <= calls["append"] < RECORDS / 1000


@pytest.mark.parametrize("how", ["read", "scan", "iterate", "poll", "poll_columns"])
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_reading_calls_the_engine_once_per_chunk(how: str, codec: Any, log: pylog.Log, calls: Counter[str]) -> None:
    with log.producer(compression_type=codec) as producer:
        producer.send_many("orders", [bytes(100)] * RECORDS)
    batches = batch_count(log)
    calls.clear()
    with log.consumer("orders", consumer_timeout_ms=0, max_poll_records=RECORDS) as consumer:
        if how == "read":
            count = sum(1 for _ in log.read("orders"))
        elif how == "scan":
            count = sum(len(columns) for columns in log.scan("orders"))
        elif how == "iterate":
            count = sum(1 for _ in consumer)
        elif how == "poll":
            count = 0
            while polled := consumer.poll():
                count += sum(map(len, polled.values()))
        else:
            count = sum(len(columns) for columns in consumer.poll_columns())
    assert count == RECORDS
    assert sum(calls.values()) <= 4 * (batches + 3) < RECORDS / 100
