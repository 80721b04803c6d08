"""Which partition a record goes to."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

import pylog
from pylog._native import murmur2

# org.apache.kafka.common.utils.UtilsTest
KAFKA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
KEYS = [b"%d" % (i * i) for i in range(200)] + [b""]


def expected(key: bytes, count: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % count


def sent_with(log: pylog.Log, how: str, keys: list[bytes | None], **options: Any) -> list[int]:
    """Send a record for each key; the partitions, in the order of sending."""
    count = 5
    log.admin.create_topic(how, partitions=count)
    values = [b"%d" % i for i in range(len(keys))]
    with log.producer(**options) as producer:
        if how == "send":
            for key, value in zip(keys, values, strict=True):
                producer.send(how, value, key)
        elif how == "send_many":
            producer.send_many(how, values, keys)
        else:
            pa = pytest.importorskip("pyarrow")
            producer.send_columns(how, pa.array(values), pa.array(keys, pa.binary()))
    found = {int(record.value): record.partition for record in log.read(how)}
    return [found[i] for i in range(len(keys))]


@pytest.mark.parametrize(("key", "hashed"), KAFKA_VECTORS.items())
def test_murmur2_is_kafka_s(key: bytes, hashed: int) -> None:
    assert murmur2(key) & 0xFFFFFFFF == hashed & 0xFFFFFFFF


@pytest.mark.parametrize("partitioner", ["default", "key"])
@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
def test_a_key_goes_where_kafka_sends_it(how: str, partitioner: str, log: pylog.Log) -> None:
    assert sent_with(log, how, list(KEYS), partitioner=partitioner) == [expected(key, 5) for key in KEYS]


@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
def test_records_without_a_key_go_round(how: str, log: pylog.Log) -> None:
    assert sent_with(log, how, [None] * 12) == [i % 5 for i in range(12)]


@pytest.mark.parametrize(
    "how",
    [
        "send",
        "send_many",
        "send_columns",
    ],
)
def test_keyed_and_unkeyed_records_do_not_disturb_each_other(how: str, log: pylog.Log) -> None:
    keys = [b"k%d" % i if i % 3 else None for i in range(60)]
    chosen = sent_with(log, how, list(keys))
    assert [p for p, key in zip(chosen, keys, strict=True) if key is None] == [i % 5 for i in range(20)]
    assert all(p == expected(key, 5) for p, key in zip(chosen, keys, strict=True) if key is not None)


@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
def test_round_robin_does_not_look_at_keys(how: str, log: pylog.Log) -> None:
    assert sent_with(log, how, [b"same"] * 12, partitioner="round_robin") == [i % 5 for i in range(12)]


def test_turns_go_on_from_one_way_of_sending_to_the_next(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=5)
    with log.producer() as producer:
        producer.send("orders", b"0")
        producer.send_many("orders", [b"1", b"2"])
        producer.send_columns("orders", np.array([b"3", b"4"]))
        producer.send("orders", b"5", headers=[("a", None)])
        producer.send("orders", b"6")
    assert sorted((r.value, r.partition) for r in log.read("orders")) == [(b"%d" % i, i % 5) for i in range(7)]


@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
def test_random_reaches_every_partition_and_none_too_often(how: str, log: pylog.Log) -> None:
    counts = Counter(sent_with(log, how, [b"same"] * 1000, partitioner="random"))
    assert set(counts) == set(range(5))
    assert max(counts.values()) < 350  # 200 on average; chance alone goes there less than once in 10^20 runs


@pytest.mark.parametrize("how", ["send", "send_many", "send_columns"])
def test_a_function_chooses_by_topic_key_value_and_count(how: str, log: pylog.Log) -> None:
    seen: list[Any] = []

    def choose(topic: str, key: bytes | None, value: bytes | None, partitions: int) -> int:
        seen.append((topic, key, partitions))
        assert value is not None
        return (int(value) * 2) % partitions

    assert sent_with(log, how, [b"k", None] * 5, partitioner=choose) == [2 * i % 5 for i in range(10)]
    assert seen == [(how, b"k", 5), (how, None, 5)] * 5


@pytest.mark.parametrize(
    ("chosen", "error", "text"),
    [
        (5, pylog.UnknownTopicOrPartitionError, "the partitioner chose partition 5, topic orders has 0 to 1"),
        (-1, pylog.UnknownTopicOrPartitionError, "the partitioner chose partition -1"),
        (None, TypeError, "the partitioner chose partition None of topic orders: not an int"),
        (True, TypeError, "the partitioner chose partition True"),
        (1.0, TypeError, r"the partitioner chose partition 1\.0"),
    ],
)
def test_a_function_that_chooses_badly_is_told_and_nothing_is_sent(
    chosen: Any, error: type[Exception], text: str, log: pylog.Log
) -> None:
    log.admin.create_topic("orders", partitions=2)
    with log.producer(partitioner=lambda *_: chosen) as producer:
        with pytest.raises(error, match=text):
            producer.send("orders", b"x")
        with pytest.raises(error, match=text):
            producer.send_many("orders", [b"x", b"y"])
        producer.send("orders", b"given", partition=1)
    assert [(r.partition, r.value) for r in log.read("orders")] == [(1, b"given")]


def test_a_function_that_raises_is_heard_and_nothing_is_sent(log: pylog.Log) -> None:
    with log.producer(partitioner=lambda *_: 1 // 0) as producer:
        with pytest.raises(ZeroDivisionError):
            producer.send("orders", b"x")
        with pytest.raises(ZeroDivisionError):
            producer.send_many("orders", [b"x", b"y"])
    assert list(log.read("orders")) == []


def test_partitioner_key_refuses_a_record_without_one(log: pylog.Log) -> None:
    with log.producer(partitioner="key") as producer:
        producer.send("orders", b"x", key=b"k")
        for refused in (
            lambda: producer.send("orders", b"x"),
            lambda: producer.send_many("orders", [b"x"]),
            lambda: producer.send_many("orders", [b"x", b"y"], [b"k", None]),
        ):
            with pytest.raises(ValueError, match="partitioner 'key' needs a key"):
                refused()
    assert [r.key for r in log.read("orders")] == [b"k"]


@pytest.mark.parametrize("partitioner", ["default", "key", "round_robin", "random", lambda *_: 0])
def test_a_partition_that_is_given_wins(partitioner: Any, log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=4)
    with log.producer(partitioner=partitioner) as producer:
        for _ in range(3):
            producer.send("orders", b"x", key=b"some", partition=3)
        producer.send_many("orders", [b"x"] * 3, [b"some"] * 3, partition=3)
        producer.send_columns("orders", np.array([b"x"]), np.array([b"k"]), partition=3)
    assert [r.partition for r in log.read("orders")] == [3] * 7
