"""pylog.kafka.KafkaConsumer."""

import re
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from pylog.kafka import (
    AsyncConsumerRebalanceListener,
    ConsumerRebalanceListener,
    Deserializer,
    IsolationLevel,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)
from pylog.kafka.consumer.fetcher import ConsumerRecord
from pylog.kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from pylog.kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from pylog.kafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConfigurationError,
    NoOffsetForPartitionError,
    UnknownTopicOrPartitionError,
)
from pylog.kafka.future import Future
from pylog.kafka.structs import ConsumerGroupMetadata, MemberState

ORDERS = TopicPartition("orders", 0)
Make = Callable[..., KafkaConsumer]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "data")


@pytest.fixture
def consumer(directory: str) -> Iterator[Make]:
    """Makes consumers that begin at the beginning and wait little, and closes them."""
    made: list[KafkaConsumer] = []

    def make(*topics: str, **options: Any) -> KafkaConsumer:
        options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 50, **options}
        made.append(KafkaConsumer(*topics, bootstrap_servers=directory, **options))
        return made[-1]

    yield make
    for one in made:
        one.close(autocommit=False)


def send(directory: str, topic: str, *values: bytes, **options: Any) -> None:
    with KafkaProducer(bootstrap_servers=directory) as producer:
        for value in values:
            producer.send(topic, value, **options)


def create(directory: str, topic: str, partitions: int = 1) -> None:
    with KafkaAdminClient(bootstrap_servers=directory) as admin:
        admin.create_topics({topic: {"num_partitions": partitions}})


def values(consumer: KafkaConsumer) -> list[Any]:
    return [record.value for record in consumer]


# -- records


def test_a_record_has_kafka_python_s_fields(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"value", key=b"key", headers=[("häder", b"x")], timestamp_ms=17)
    send(directory, "orders", b"")
    first, second = consumer("orders")
    headers = [("häder", b"x")]
    assert first == ConsumerRecord("orders", 0, -1, 0, 17, 0, b"key", b"value", headers, None, 3, 5, 7)
    assert (second.headers, second[-3:]) == ([], (-1, 0, -1))


def test_poll_gives_lists_by_partition_and_no_more_than_asked_for(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a", b"b", b"c")
    reader = consumer("orders", max_poll_records=2)
    assert [[r.value for r in records] for records in reader.poll().values()] == [[b"a", b"b"]]
    reader.seek(ORDERS, 0)
    polled = reader.poll(max_records=1)
    assert list(polled) == [ORDERS]
    assert [record.offset for record in polled[ORDERS]] == [0]
    assert reader.poll(update_offsets=False)[ORDERS] == reader.poll(update_offsets=False)[ORDERS]
    assert reader.position(ORDERS) == 1


def test_poll_refuses_what_makes_no_sense(consumer: Make) -> None:
    reader = consumer()
    with pytest.raises(ValueError, match="timeout_ms"):
        reader.poll(timeout_ms=-1)
    with pytest.raises(TypeError, match="max_records"):
        reader.poll(max_records=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_records"):
        reader.poll(max_records=0)
    reader.close()
    with pytest.raises(IllegalStateError, match="closed"):
        reader.poll()
    assert list(reader) == []


class Upper(Deserializer):
    closed = 0

    def deserialize(self, topic: str, headers: Any, data: Any) -> Any:
        return topic, headers, data and data.upper()

    def close(self) -> None:
        self.closed += 1


def test_deserializers_see_topic_headers_and_none(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"v", headers=[("h", b"1")])
    upper = Upper()
    reader = consumer("orders", value_deserializer=upper, key_deserializer=lambda data: f"<{data}>")
    (record,) = reader
    assert (record.key, record.value) == ("<None>", ("orders", [("h", b"1")], b"V"))
    assert (record.serialized_key_size, record.serialized_value_size) == (-1, 1)
    reader.close()
    assert upper.closed == 1


@pytest.mark.parametrize("read", ["poll", "iterate"])
def test_a_deserializer_that_fails_skips_nothing(directory: str, consumer: Make, read: str) -> None:
    """The records before it come first, then its error, as often as it is asked; then, perhaps, the rest."""
    send(directory, "orders", b"1", b"x", b"3")
    accepted = {b"1", b"3"}

    def number(data: bytes) -> int:
        if data not in accepted:
            raise ValueError(f"{data!r} is no number")
        return data[0] - 48

    reader = consumer("orders", value_deserializer=number, group_id="g", enable_auto_commit=False)
    first = next(reader) if read == "iterate" else reader.poll()[ORDERS][0]
    assert first.value == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="b'x' is no number"):
            next(reader) if read == "iterate" else reader.poll()
        assert reader.position(ORDERS) == 1
    accepted.add(b"x")
    assert values(reader) == [ord("x") - 48, 3]


def test_partitions_behind_one_that_fails_are_read_all_the_same(directory: str, consumer: Make) -> None:
    create(directory, "wide", 3)
    for partition, value in enumerate((b"1", b"x", b"3")):
        send(directory, "wide", value, partition=partition)
    reader = consumer("wide", value_deserializer=int)
    read: list[int] = []
    for _ in range(6):
        try:
            read += [record.value for records in reader.poll().values() for record in records]
        except ValueError:
            reader.pause(TopicPartition("wide", 1))
    assert sorted(read) == [1, 3]


# -- where reading begins


def test_reading_begins_at_the_end_unless_asked_otherwise(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"before")
    with KafkaConsumer("orders", bootstrap_servers=directory, consumer_timeout_ms=50) as latest:
        send(directory, "orders", b"after")
        assert values(latest) == [b"after"]
    assert values(consumer("orders", auto_offset_reset="smallest")) == [b"before", b"after"]
    with pytest.raises(NoOffsetForPartitionError):
        consumer("orders", auto_offset_reset="anything else").poll()


def test_offsets_can_be_looked_up_and_gone_to(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a", timestamp_ms=1000)
    send(directory, "orders", b"b", timestamp_ms=2000)
    reader = consumer("orders")
    assert reader.beginning_offsets([ORDERS]) == {ORDERS: 0}
    assert reader.end_offsets([ORDERS]) == {ORDERS: 2}
    assert reader.highwater(ORDERS) == 2
    assert reader.offsets_for_times({ORDERS: 1500.7}) == {ORDERS: OffsetAndTimestamp(1, 2000)}
    assert reader.offsets_for_times({ORDERS: 3000}) == {ORDERS: None}
    with pytest.raises(ValueError, match="-1"):
        reader.offsets_for_times({ORDERS: -1})
    reader.seek_to_end()
    assert values(reader) == []
    reader.seek_to_beginning(ORDERS)
    assert values(reader) == [b"a", b"b"]
    reader.seek(ORDERS, 1)
    assert values(reader) == [b"b"]
    with pytest.raises(UnknownTopicOrPartitionError):
        reader.end_offsets([TopicPartition("none", 0)])


def test_positions_are_refused_for_what_is_not_assigned(directory: str, consumer: Make) -> None:
    create(directory, "orders")
    reader = consumer()
    for use in (reader.seek_to_beginning, reader.seek_to_end):
        with pytest.raises(ValueError, match="no partition is assigned"):
            use()
        with pytest.raises(ValueError, match="orders-0 is not assigned"):
            use(ORDERS)
    with pytest.raises(ValueError, match="orders-0 is not assigned"):
        reader.seek(ORDERS, 0)
    for ask in (reader.position, reader.highwater):
        with pytest.raises(IllegalStateError, match="not assigned"):
            ask(ORDERS)
    reader.assign([ORDERS])
    with pytest.raises(ValueError, match="an offset is an int from 0"):
        reader.seek(ORDERS, -1)
    for use_of_a_pair in (reader.position, reader.highwater, reader.pause, reader.resume, reader.seek_to_end):
        with pytest.raises(TypeError, match="TopicPartition"):
            use_of_a_pair(("orders", 0))  # type: ignore[arg-type]


def test_paused_partitions_give_nothing(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a")
    reader = consumer("orders")
    reader.pause(ORDERS)
    assert (reader.paused(), values(reader)) == ({ORDERS}, [])
    reader.resume(ORDERS)
    assert values(reader) == [b"a"]


# -- what to read


def test_topics_and_partitions_are_listed(directory: str, consumer: Make) -> None:
    create(directory, "wide", 3)
    send(directory, "orders", b"a")
    reader = consumer("orders", group_id="g")
    values(reader)
    reader.commit()  # makes Kafka's own topic
    assert reader.topics() == {"orders", "wide"}
    assert reader.partitions_for_topic("wide") == {0, 1, 2}
    assert reader.partitions_for_topic("none") == set()
    assert (reader.subscription(), reader.assignment()) == ({"orders"}, {ORDERS})


def test_there_is_one_way_of_choosing_at_a_time(directory: str, consumer: Make) -> None:
    create(directory, "orders")
    by_name, by_pattern, by_hand = consumer("orders"), consumer(), consumer()
    by_pattern.subscribe(pattern="ord")
    by_hand.assign([ORDERS])
    for reader, refused in (
        (by_name, (lambda: by_name.assign([ORDERS]), lambda: by_name.subscribe(pattern="o"))),
        (by_pattern, (lambda: by_pattern.assign([ORDERS]), lambda: by_pattern.subscribe(["orders"]))),
        (by_hand, (lambda: by_hand.subscribe(["orders"]), lambda: by_hand.subscribe(pattern="o"))),
    ):
        for use in refused:
            with pytest.raises(IllegalStateError, match="one of them"):
                use()
        reader.unsubscribe()
        assert (reader.subscription(), reader.assignment()) == (None, set())
        reader.subscribe(["orders"])
        assert reader.assignment() == {ORDERS}
    by_name.subscribe(["orders", "others"])
    assert by_name.subscription() == {"orders", "others"}
    with pytest.raises(ValueError, match="topics or a pattern"):
        by_name.subscribe()
    with pytest.raises(TypeError, match="topics must be a list"):
        by_name.subscribe("orders")
    with pytest.raises(TypeError, match="a topic is a str"):
        by_name.subscribe([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="listener must be"):
        by_name.subscribe(["orders"], listener=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="TopicPartition"):
        consumer().assign([("orders", 0)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("^awesome.*", {"awesome-1", "awesomeb"}),
        ("awe", {"awesome-1", "awesomeb"}),
        ("b|awesome-", {"awesome-1", "big"}),
        ("(?i)AWESOMEB$", {"awesomeb"}),
        (re.compile("BIG", re.IGNORECASE), {"big"}),
        ("wesome", set()),
    ],
)
def test_a_pattern_matches_beginnings_of_names(directory: str, consumer: Make, pattern: Any, matched: set[str]) -> None:
    for topic in ("awesome-1", "awesomeb", "big"):
        create(directory, topic)
    reader = consumer()
    reader.subscribe(pattern=pattern)
    assert reader.subscription() == matched
    assert {tp.topic for tp in reader.assignment()} == matched


def test_what_is_assigned_before_it_is_there_is_read_once_it_is(directory: str, consumer: Make) -> None:
    create(directory, "there")
    reader = consumer()
    late = TopicPartition("late", 1)
    reader.assign([TopicPartition("there", 0), late])
    assert reader.assignment() == {TopicPartition("there", 0), late}
    assert reader.position(late) is None
    assert reader.poll() == {}
    create(directory, "late", 2)
    sender = threading.Thread(target=send, args=(directory, "late", b"x"), kwargs={"partition": 1})
    sender.start()
    assert [record.value for record in reader.poll(timeout_ms=60_000)[late]] == [b"x"]
    sender.join()
    assert reader.position(late) == 1
    reader.assign([])
    assert reader.assignment() == set()


@pytest.mark.parametrize("level", ["read_committed", "READ-COMMITTED", 1, IsolationLevel.READ_COMMITTED])
def test_the_isolation_level_has_several_names(directory: str, consumer: Make, level: Any) -> None:
    send(directory, "orders", b"a")
    assert values(consumer("orders", isolation_level=level)) == [b"a"]


def test_an_unknown_isolation_level_is_refused(consumer: Make) -> None:
    with pytest.raises(ValueError, match="IsolationLevel has no 'serializable'"):
        consumer(isolation_level="serializable")


# -- the group


def test_commits_are_remembered_by_the_group(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a", b"b", b"c")
    reader = consumer("orders", group_id="g", enable_auto_commit=False)
    assert reader.committed(ORDERS) is None
    next(reader)
    reader.commit()
    assert reader.committed(ORDERS) == 1
    reader.commit({ORDERS: OffsetAndMetadata(2, "half")})
    assert reader.committed(ORDERS, metadata=True) == OffsetAndMetadata(2, "half")
    metadata = reader.group_metadata()
    assert (metadata.group_id, metadata.state) == ("g", MemberState.STABLE)
    reader.close()
    assert values(consumer("orders", group_id="g")) == [b"c"]


def test_a_commit_that_does_not_wait_tells_its_future_and_its_callback(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a")
    told: list[Any] = []
    reader = consumer("orders", group_id="g", default_offset_commit_callback=lambda *what: told.append(what))
    values(reader)
    offsets = {ORDERS: OffsetAndMetadata(1)}
    future = reader.commit_async(offsets)
    assert (future.succeeded(), future.value) == (True, None)
    assert told == []
    reader.poll()
    assert told == [(offsets, None)]
    mine: list[Any] = []
    foreign = {TopicPartition("others", 0): OffsetAndMetadata(1)}
    future = reader.commit_async(foreign, lambda *what: mine.append(what))
    reader.poll()
    assert isinstance(future.exception, CommitFailedError)
    assert mine == [(foreign, future.exception)]
    assert len(told) == 1


def test_without_a_group_there_are_no_commits(directory: str, consumer: Make) -> None:
    create(directory, "orders")
    reader = consumer("orders")
    for use in (reader.commit, reader.commit_async, lambda: reader.committed(ORDERS)):
        with pytest.raises(IllegalStateError, match="no group_id"):
            use()
    assert reader.group_metadata() == ConsumerGroupMetadata(None)
    with pytest.raises(KafkaConfigurationError, match="group_instance_id needs a group_id"):
        consumer(group_instance_id="i")


def test_closing_commits_and_an_exception_does_not(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a", b"b")
    with pytest.raises(ZeroDivisionError), consumer("orders", group_id="g") as reader:
        1 / len(next(reader).value[:0])
    with consumer("orders", group_id="g") as reader:
        assert values(reader) == [b"a", b"b"]
    assert values(consumer("orders", group_id="g")) == []


class Told(ConsumerRebalanceListener):
    def __init__(self) -> None:
        self.told: list[tuple[str, set[TopicPartition]]] = []

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.told.append(("revoked", set(revoked)))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", set(assigned)))


class ToldLater(AsyncConsumerRebalanceListener):
    """Awaits a commit."""

    def __init__(self, reader: KafkaConsumer) -> None:
        self.reader = reader
        self.told: list[tuple[str, set[TopicPartition]]] = []

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self.reader.commit_async()
        self.told.append(("revoked", set(revoked)))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", set(assigned)))


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_members_share_partitions_and_listeners_are_told(directory: str, consumer: Make, kind: str) -> None:
    create(directory, "wide", 2)
    reader = consumer(group_id="g")
    listener: Any = Told() if kind == "plain" else ToldLater(reader)
    reader.subscribe(["wide"], listener=listener)
    both = {TopicPartition("wide", 0), TopicPartition("wide", 1)}
    assert listener.told == [("assigned", both)]
    other = consumer("wide", group_id="g")
    reader.poll()
    other.poll()
    assert len(reader.assignment()) == len(other.assignment()) == 1
    assert reader.assignment() | other.assignment() == both
    assert listener.told[1:] == [("revoked", both - reader.assignment())]


def test_a_coroutine_that_awaits_anything_else_is_refused(directory: str, consumer: Make) -> None:
    create(directory, "orders")

    class Waiting(AsyncConsumerRebalanceListener):
        async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            await Future()

    with pytest.raises(IllegalStateError, match="awaits something"):
        consumer(group_id="g").subscribe(["orders"], listener=Waiting())


def test_a_listener_without_a_group_is_never_told(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"a")
    listener = Told()
    reader = consumer()
    reader.subscribe(["orders"], listener=listener)
    assert (values(reader), listener.told) == ([b"a"], [])


def test_strategies_are_classes_objects_or_names(directory: str, consumer: Make) -> None:
    create(directory, "orders")
    for strategy in (StickyPartitionAssignor, CooperativeStickyAssignor(), "range"):
        reader = consumer("orders", group_id=f"g {strategy}", partition_assignment_strategy=[strategy])
        with KafkaAdminClient(bootstrap_servers=directory) as admin:
            described = admin.describe_groups([f"g {strategy}"])[f"g {strategy}"]
        assert described["protocol_data"] == getattr(strategy, "name", strategy)
        reader.close()
    with pytest.raises(KafkaConfigurationError, match="partition_assignment_strategy <class 'int'>"):
        consumer(partition_assignment_strategy=[int])


# -- the rest


def test_metrics_count_what_was_read_and_what_is_left(directory: str, consumer: Make) -> None:
    send(directory, "orders", b"abc", b"d", b"e", key=b"k")
    reader = consumer("orders")
    next(reader)
    metrics = reader.metrics() or {}
    fetched = metrics["consumer-fetch-manager-metrics"]
    assert (fetched["records-consumed-total"], fetched["bytes-consumed-total"]) == (1, 4)
    assert fetched["records-lag-max"] == 2
    assert metrics["consumer-coordinator-metrics"] == {"assigned-partitions": 1}
    assert len(reader.metrics(raw=True) or {}) == len(fetched) + 1
    assert consumer(metrics_enabled=False).metrics() is None


def test_a_consumer_is_connected_until_it_is_closed(consumer: Make) -> None:
    reader = consumer()
    reader.bootstrap(timeout_ms=1)
    assert reader.bootstrap_connected()
    reader.close()
    reader.close()
    assert not reader.bootstrap_connected()


def test_a_future_tells_callbacks_that_come_before_and_after_it_is_done() -> None:
    told: list[Any] = []
    first, second = Future(), Future()
    first.add_both(lambda *what: told.append(what), "early").chain(second)
    assert not first.is_done
    with pytest.raises(TimeoutError):
        first.get(timeout=0)
    first.failure(ZeroDivisionError)
    first.add_errback(lambda *what: told.append(what), "late").add_callback(told.append)
    assert [what for what, _ in told] == ["early", "late"]
    assert second.exception is first.exception
    assert (first.failed(), first.retriable()) == (True, False)
    with pytest.raises(ZeroDivisionError):
        second.get()
