"""pylog.kafka.KafkaProducer, and the Log that clients of one directory share."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog.kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, Serializer, TopicPartition, _logs
from pylog.kafka.errors import (
    IllegalStateError,
    KafkaConfigurationError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
)
from pylog.kafka.partitioner import DefaultPartitioner, Partitioner, StickyPartitioner, murmur2
from pylog.kafka.producer.future import RecordMetadata


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "data")
    assert str(tmp_path / "data") not in _logs._open  # every test closes its clients


@pytest.fixture
def producer(directory: str) -> Iterator[KafkaProducer]:
    with KafkaProducer(bootstrap_servers=directory) as made:
        yield made


def create(directory: str, topic: str, partitions: int) -> None:
    with KafkaAdminClient(bootstrap_servers=directory) as admin:
        admin.create_topics({topic: {"num_partitions": partitions}})


def records(directory: str, topic: str) -> list[pylog.Record]:
    with pylog.open(directory, read_only=True) as log:
        return list(log.read(topic))


# -- the shared log


def test_clients_of_one_directory_share_a_log_that_the_last_one_closes(directory: str) -> None:
    producer = KafkaProducer(bootstrap_servers=directory)
    consumer = KafkaConsumer(bootstrap_servers=[directory])
    admin = KafkaAdminClient(bootstrap_servers=Path(directory))
    log = _logs._open[directory].log
    for client in (producer, producer, consumer):  # closing twice counts once
        client.close()
    assert admin.list_topics() == []
    assert len(_logs._open) == 1
    admin.close()
    assert _logs._open == {}
    with pytest.raises(pylog.ClosedError):
        log.check_open()
    assert (Path(directory) / ".kafka_cleanshutdown").exists()


def test_a_client_that_cannot_be_made_leaves_the_log_closed(directory: str) -> None:
    with pytest.raises(ValueError, match="compression_type 'bogus'"):
        KafkaProducer(bootstrap_servers=directory, compression_type="bogus")
    with pytest.raises(KafkaConfigurationError, match="max_poll_records"):
        KafkaConsumer(bootstrap_servers=directory, max_poll_records=0)
    with pytest.raises(ValueError, match="no//slash"):
        KafkaConsumer("no//slash", bootstrap_servers=directory)
    assert _logs._open == {}


@pytest.mark.parametrize("servers", ["localhost:9092", "kafka://host", ["a", "b"], [], None, 7])
def test_servers_are_refused_where_a_directory_is_to_be_named(
    servers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KafkaConfigurationError, match="bootstrap_servers must name"):
        KafkaProducer(bootstrap_servers=servers)
    with pytest.raises(KafkaConfigurationError, match="'localhost' looks like a server"):
        KafkaConsumer()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_may_be_named_like_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "localhost").mkdir()
    with KafkaAdminClient() as admin:
        admin.create_topics(["orders"])
    assert (tmp_path / "localhost" / "orders-0").is_dir()


def test_a_forked_child_opens_the_directory_for_itself(directory: str, in_child: Callable[..., Any]) -> None:
    with KafkaProducer(bootstrap_servers=directory) as producer:
        producer.send("orders", b"parent").get()

        def send() -> Any:
            with KafkaProducer(bootstrap_servers=directory) as own:
                return own.send("orders", b"child").get().offset

        assert in_child(send) == 1
        kind, _ = in_child(lambda: producer.send("orders", b"x").get())
        assert kind == "ForkError"
    assert [record.value for record in records(directory, "orders")] == [b"parent", b"child"]


def test_unknown_options_are_kafka_python_s_errors(directory: str) -> None:
    with pytest.raises(ValueError, match="KafkaProducer has no option buffer_memory"):
        KafkaProducer(bootstrap_servers=directory, buffer_memory=1)
    with pytest.raises(KafkaConfigurationError, match="KafkaConsumer has no option acks"):
        KafkaConsumer(bootstrap_servers=directory, acks=1)
    with pytest.raises(KafkaConfigurationError, match="KafkaAdminClient has no option group_id"):
        KafkaAdminClient(bootstrap_servers=directory, group_id="g")


def test_options_of_networks_are_taken_and_kept(directory: str) -> None:
    with KafkaProducer(
        bootstrap_servers=directory, security_protocol="SASL_SSL", sasl_plain_password="x", api_version=(2, 8)
    ) as producer:
        assert producer.config["security_protocol"] == "SASL_SSL"
        assert producer.bootstrap_connected()
    assert not producer.bootstrap_connected()


# -- sending


def test_a_future_comes_to_the_record_s_place_and_sizes(producer: KafkaProducer) -> None:
    future = producer.send("orders", b"value", key=b"key", headers=[("häder", b"x")], timestamp_ms=17)
    tp = TopicPartition("orders", 0)
    assert future.get(timeout=10) == RecordMetadata("orders", 0, tp, 0, 17, None, 3, 5, 7)
    assert (future.is_done, future.succeeded(), future.failed(), future.exception) == (True, True, False, None)
    assert future.value == future.get()
    assert producer.send("orders", b"", timestamp_ms=18).get()[3:] == (1, 18, None, -1, 0, -1)


def test_callbacks_get_their_arguments_and_the_metadata(producer: KafkaProducer) -> None:
    called: list[Any] = []
    future = producer.send("orders", b"v")
    assert future.add_callback(lambda *a, **k: called.append((a, k)), 1, two=2) is future
    future.add_errback(called.append)
    producer.flush()
    assert called == [((1, future.get()), {"two": 2})]


def test_a_failure_is_told_to_get_errback_and_exception_and_else_raised_by_flush(directory: str) -> None:
    told: list[BaseException] = []
    with KafkaProducer(bootstrap_servers=directory, linger_ms=100_000) as producer:
        create(directory, "gone", 1)
        future = producer.send("gone", b"x").add_errback(told.append)
        with KafkaAdminClient(bootstrap_servers=directory) as admin:
            admin.delete_topics(["gone"])
        with pytest.raises(UnknownTopicOrPartitionError, match="gone was deleted"):
            future.get(timeout=10)
        assert told == [future.exception]
        assert (future.failed(), future.retriable(), future.value) == (True, True, None)
        producer.flush()  # somebody has seen it
        create(directory, "gone", 1)
        producer.send("gone", b"y")
        with KafkaAdminClient(bootstrap_servers=directory) as admin:
            admin.delete_topics(["gone"])
        with pytest.raises(UnknownTopicOrPartitionError):
            producer.flush()


def test_arguments_that_make_no_sense_are_refused(producer: KafkaProducer) -> None:
    with pytest.raises(ValueError, match="key or a value"):
        producer.send("orders")
    with pytest.raises(TypeError, match="the value must be bytes"):
        producer.send("orders", "text")
    with pytest.raises(TypeError, match="the key must be bytes"):
        producer.send("orders", b"v", key=3)
    with pytest.raises(TypeError, match="headers must be a list"):
        producer.send("orders", b"v", headers=(("a", b"b"),))  # type: ignore[arg-type]
    for header in (("a", None), ["a", b"b"], ("a",), ("a", b"b", b"c"), (b"a", b"b")):
        with pytest.raises(TypeError, match="a header must be"):
            producer.send("orders", b"v", headers=[header])  # type: ignore[list-item]
    for partition in (-1, 1):
        with pytest.raises(ValueError, match=f"partition {partition}: topic orders has 0 to 0"):
            producer.send("orders", b"v", partition=partition)
    with pytest.raises(MessageSizeTooLargeError, match="max_request_size is 1048576"):
        producer.send("orders", bytes(1_048_576))


def test_a_closed_producer_says_so(producer: KafkaProducer) -> None:
    producer.close()
    for use in (lambda: producer.send("orders", b"v"), producer.flush, lambda: producer.partitions_for("orders")):
        with pytest.raises(IllegalStateError, match="closed"):
            use()
    with pytest.raises(ValueError, match="timeout"):
        producer.close(timeout=-1)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_can_be_read_again(directory: str, codec: str) -> None:
    with KafkaProducer(bootstrap_servers=directory, compression_type=codec) as producer:
        for i in range(10):
            producer.send("orders", b"x" * 100 + b"%d" % i)
    assert [record.value for record in records(directory, "orders")] == [b"x" * 100 + b"%d" % i for i in range(10)]


def test_without_acks_there_is_no_offset(directory: str) -> None:
    with KafkaProducer(bootstrap_servers=directory, acks=0, enable_idempotence=False, linger_ms=100_000) as producer:
        assert producer.send("orders", b"v").get().offset == -1


def test_a_topic_that_may_not_be_made_is_waited_for(directory: str) -> None:
    with KafkaProducer(bootstrap_servers=directory, allow_auto_create_topics=False, max_block_ms=0) as producer:
        with pytest.raises(KafkaTimeoutError, match="no topic 'late'"):
            producer.send("late", b"v", key=b"k")
        producer.config["max_block_ms"] = 60_000
        sent: list[int] = []
        sender = threading.Thread(target=lambda: sent.append(producer.send("late", b"v").get().offset))
        sender.start()
        create(directory, "late", 1)
        sender.join()
        assert sent == [0]


# -- options that do not go together


def test_idempotence_goes_with_all_acks_only(directory: str) -> None:
    for options in ({"acks": 1}, {"acks": 0}, {"retries": 0}, {"max_in_flight_requests_per_connection": 6}):
        with pytest.raises(KafkaConfigurationError, match="enable_idempotence=True does not go with"):
            KafkaProducer(bootstrap_servers=directory, enable_idempotence=True, **options)
        with KafkaProducer(bootstrap_servers=directory, **options) as producer:
            assert producer.config["enable_idempotence"] is False
    with pytest.raises(KafkaConfigurationError, match="acks must be"):
        KafkaProducer(bootstrap_servers=directory, acks=2)


def test_transactions_are_refused(directory: str, producer: KafkaProducer) -> None:
    with pytest.raises(UnsupportedVersionError, match="transactional_id: this version of pylog has no transactions"):
        KafkaProducer(bootstrap_servers=directory, transactional_id="t")
    for use in (
        producer.init_transactions,
        producer.begin_transaction,
        producer.commit_transaction,
        producer.abort_transaction,
        lambda: producer.send_offsets_to_transaction({}, None),
    ):
        with pytest.raises(IllegalStateError, match=r"transaction.*: the producer has no transactional_id"):
            use()


# -- partitioners and serializers


def test_keys_go_where_kafka_s_clients_send_them_and_others_anywhere(directory: str, producer: KafkaProducer) -> None:
    create(directory, "wide", 4)
    keys = [b"%d" % i for i in range(50)]
    placed = {key: producer.send("wide", b"v", key=key).get().partition for key in keys}
    assert placed == {key: (murmur2(key) & 0x7FFFFFFF) % 4 for key in keys}
    assert murmur2(b"21") == 0xC5F2F8EC
    futures = [producer.send("wide", b"v") for _ in range(200)]
    numbers = [future.get().partition for future in futures]
    assert set(numbers) == {0, 1, 2, 3}
    assert numbers != [numbers[0] + i % 4 for i in range(200)]
    assert producer.partitions_for("wide") == {0, 1, 2, 3}


def test_a_partitioner_sees_everything_and_decides(directory: str) -> None:
    create(directory, "wide", 4)
    seen: list[Any] = []

    class Last(Partitioner):
        def partition(
            self, topic: str, key: Any, serialized_key: Any, value: Any, serialized_value: Any, cluster: Any
        ) -> int:
            seen.append((topic, key, serialized_key, value, serialized_value))
            assert cluster.topics() == {"wide"}
            assert cluster.available_partitions_for_topic("wide") == {0, 1, 2, 3}
            return max(cluster.partitions_for_topic(topic))

    with KafkaProducer(bootstrap_servers=directory, partitioner=Last(), value_serializer=str.encode) as producer:
        assert producer.send("wide", "v", key=b"k").get().partition == 3
        assert producer.send("wide", "v", partition=1).get().partition == 1
    assert seen == [("wide", b"k", b"k", "v", b"v")]
    with KafkaProducer(bootstrap_servers=directory, partitioner=lambda key, every, there: every[len(key)]) as producer:
        assert producer.send("wide", b"v", key=b"kk").get().partition == 2
        with pytest.raises(IndexError):
            producer.send("wide", b"v", key=b"long")
    with (
        KafkaProducer(bootstrap_servers=directory, partitioner=lambda key, every, there: 4) as producer,
        pytest.raises(ValueError, match="the partitioner chose 4: topic wide has partitions 0 to 3"),
    ):
        producer.send("wide", b"v")
    with pytest.raises(KafkaConfigurationError, match="partitioner must have"):
        KafkaProducer(bootstrap_servers=directory, partitioner="default")


def test_the_default_partitioner_refuses_what_is_not_there(producer: KafkaProducer) -> None:
    with pytest.raises(ValueError, match="no topic 'none'"):
        DefaultPartitioner().partition("none", None, None, None, None, producer._cluster)


def test_a_sticky_partitioner_stays_until_a_batch_is_full(directory: str) -> None:
    create(directory, "wide", 4)
    with KafkaProducer(
        bootstrap_servers=directory, partitioner=StickyPartitioner(), linger_ms=100_000, batch_size=1000
    ) as producer:
        futures = [producer.send("wide", bytes(90)) for _ in range(100)]
        numbers = [future.get().partition for future in futures]
    changes = sum(a != b for a, b in itertools.pairwise(numbers))
    assert 5 <= changes <= 20  # about one each 9 records
    assert len(set(numbers)) > 1


class Shouting(Serializer):
    """Sees the topic and the headers."""

    closed = 0

    def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
        return f"{topic} {headers} {data}".upper().encode()

    def close(self) -> None:
        self.closed += 1


class Former:
    """As kafka-python 2 had them."""

    def serialize(self, topic: str, data: Any) -> bytes:
        return f"{topic}={data}".encode()


def test_serializers_may_be_objects_of_both_kinds_or_functions_and_see_none(directory: str) -> None:
    shouting = Shouting()
    with KafkaProducer(bootstrap_servers=directory, key_serializer=shouting, value_serializer=Former()) as producer:
        producer.send("a", 1, key="k", headers=[("h", b"")])
    assert shouting.closed == 1
    with KafkaProducer(bootstrap_servers=directory, value_serializer=lambda value: b"<%r>" % (value,)) as producer:
        producer.send("a", None, key=b"k")
    first, second = records(directory, "a")
    assert (first.key, first.value, second.value) == (b"A [('H', B'')] K", b"a=1", b"<None>")
    with pytest.raises(KafkaConfigurationError, match="value_serializer must be a function"):
        KafkaProducer(bootstrap_servers=directory, value_serializer="json")


# -- metrics


def test_metrics_count_what_was_sent(directory: str, producer: KafkaProducer) -> None:
    for size in (10, 30):
        producer.send("orders", bytes(size))
    numbers = (producer.metrics() or {})["producer-metrics"]
    assert numbers["record-send-total"] == 2
    assert numbers["record-size-max"] - numbers["record-size-avg"] == 10
    assert numbers["byte-rate"] > 0
    raw = producer.metrics(raw=True) or {}
    assert {(name.group, name.name): metric.value() for name, metric in raw.items()}[
        ("producer-metrics", "record-send-total")
    ] == 2
    with KafkaProducer(bootstrap_servers=directory, metrics_enabled=False) as silent:
        assert silent.metrics() is None
