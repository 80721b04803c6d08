"""The programs that kafka-python's pages show run here, unchanged but for the import and the directory.

DIRECTORY stands where they name servers, and is added where they name none.  Loops without end end with the records
that they print.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pylog.kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition


class EnoughError(Exception):
    """The snippet has printed what it was to print."""


class Snippets:
    """Runs pieces of source one after another, with the names of those before."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.printed: list[Any] = []
        self.names: dict[str, Any] = {"DIRECTORY": directory, "print": self._print}
        self._limit = 10**9

    def _print(self, *what: Any) -> None:
        self.printed.extend(what)
        if len(self.printed) >= self._limit:
            raise EnoughError

    def run(self, source: str, *, prints: int | None = None) -> dict[str, Any]:
        """With `prints`, until so much is printed."""
        self._limit = 10**9 if prints is None else len(self.printed) + prints
        ended = contextlib.nullcontext() if prints is None else pytest.raises(EnoughError)
        with ended:
            exec(source.replace("from kafka", "from pylog.kafka"), self.names)
        return self.names

    def records(self, topic: str) -> list[tuple[Any, Any]]:
        """Keys and values of a topic."""
        with KafkaConsumer(
            topic, bootstrap_servers=self.directory, auto_offset_reset="earliest", consumer_timeout_ms=100
        ) as consumer:
            return [(record.key, record.value) for record in consumer]


@pytest.fixture
def snippets(tmp_path: Path) -> Iterator[Snippets]:
    found = Snippets(str(tmp_path / "data"))
    yield found
    for name in ("consumer", "producer", "admin"):
        if name in found.names:
            found.names[name].close()


@contextlib.contextmanager
def feeding(directory: str, topic: str, value: bytes, **options: Any) -> Iterator[None]:
    """Somebody goes on sending to the topic."""
    over = threading.Event()
    with KafkaProducer(bootstrap_servers=directory) as producer:

        def feed() -> None:
            while not over.wait(0.005):
                producer.send(topic, value, **options)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            yield
        finally:
            over.set()
            feeder.join()


def test_readme_consumer(snippets: Snippets) -> None:
    with feeding(snippets.directory, "my_favorite_topic", b"news"):
        snippets.run(
            """
from kafka import KafkaConsumer
consumer = KafkaConsumer('my_favorite_topic', bootstrap_servers=DIRECTORY)
for msg in consumer:
    print (msg)
""",
            prints=3,
        )
    assert [record.value for record in snippets.printed] == [b"news"] * 3


def test_readme_consumer_in_a_group(snippets: Snippets) -> None:
    with feeding(snippets.directory, "my_favorite_topic", b"news"):
        names = snippets.run(
            """
from kafka import KafkaConsumer
consumer = KafkaConsumer('my_favorite_topic', group_id='my_favorite_group', bootstrap_servers=DIRECTORY)
for msg in consumer:
    print (msg)
""",
            prints=3,
        )
    names["consumer"].close()
    with KafkaAdminClient(bootstrap_servers=snippets.directory) as admin:
        committed = admin.list_group_offsets("my_favorite_group")["my_favorite_group"]
    assert committed[TopicPartition("my_favorite_topic", 0)].offset == snippets.printed[-1].offset + 1


def test_readme_consumer_of_an_assigned_partition(snippets: Snippets) -> None:
    with KafkaAdminClient(bootstrap_servers=snippets.directory) as admin:
        admin.create_topics({"foobar": {"num_partitions": 3}})
    with feeding(snippets.directory, "foobar", b"two", partition=2):
        names = snippets.run("""
from kafka import KafkaConsumer, TopicPartition
consumer = KafkaConsumer(bootstrap_servers=DIRECTORY)
consumer.assign([TopicPartition('foobar', 2)])
msg = next(consumer)
""")
    assert (names["msg"].partition, names["msg"].value) == (2, b"two")


def test_readme_consumer_of_json_with_headers_and_metrics(snippets: Snippets) -> None:
    headers = [("content-encoding", b"base64")]
    with feeding(snippets.directory, "json-foo", b'{"a": 1}', headers=headers):
        names = snippets.run(
            """
from kafka import KafkaConsumer, JsonSerializer
consumer = KafkaConsumer(value_deserializer=JsonSerializer(), bootstrap_servers=DIRECTORY)
consumer.subscribe(['json-foo'])
for msg in consumer:
    assert isinstance(msg.value, dict)
    print (msg.headers)
""",
            prints=1,
        )
        names = snippets.run("metrics = consumer.metrics()")
    assert snippets.printed == [headers]
    assert names["metrics"]["consumer-fetch-manager-metrics"]["records-consumed-total"] == 1


def test_readme_consumer_of_committed_records(snippets: Snippets) -> None:
    with feeding(snippets.directory, "txn_topic", b"yes"):
        snippets.run(
            """
from kafka import KafkaConsumer, IsolationLevel
consumer = KafkaConsumer(isolation_level=IsolationLevel.READ_COMMITTED, bootstrap_servers=DIRECTORY)
consumer.subscribe(['txn_topic'])
for msg in consumer:
    print(msg)
""",
            prints=1,
        )
    assert snippets.printed[0].value == b"yes"


def test_readme_producer(snippets: Snippets) -> None:
    names = snippets.run("""
from kafka import KafkaProducer
producer = KafkaProducer(bootstrap_servers=DIRECTORY)
for _ in range(100):
    producer.send('foobar', b'some_message_bytes')

future = producer.send('foobar', b'another_message')
result = future.get(timeout=60)

producer.flush()

producer.send('foobar', key=b'foo', value=b'bar')
producer.send('foobar', value=b'c29tZSB2YWx1ZQ==', headers=[('content-encoding', b'base64')])

metrics = producer.metrics()
""")
    assert names["result"].offset == 100
    assert names["metrics"]["producer-metrics"]["record-send-total"] == 103
    names["producer"].close()
    records = snippets.records("foobar")
    assert (len(records), records[101]) == (103, (b"foo", b"bar"))


def test_readme_producer_with_serializers_and_compression(snippets: Snippets) -> None:
    snippets.run("""
from kafka import KafkaProducer, JsonSerializer
producer = KafkaProducer(value_serializer=JsonSerializer(), bootstrap_servers=DIRECTORY)
producer.send('fizzbuzz', {'foo': 'bar'})
producer.close()

from kafka import KafkaProducer, DefaultSerializer
producer = KafkaProducer(key_serializer=DefaultSerializer(), bootstrap_servers=DIRECTORY)
producer.send('flipflap', key='ping', value=b'1234')
producer.close()

producer = KafkaProducer(compression_type='gzip', bootstrap_servers=DIRECTORY)
for i in range(1000):
    producer.send('foobar', b'msg %d' % i)
producer.close()
""")
    assert snippets.records("fizzbuzz") == [(None, b'{"foo": "bar"}')]
    assert snippets.records("flipflap") == [(b"ping", b"1234")]
    assert snippets.records("foobar") == [(None, b"msg %d" % i) for i in range(1000)]


def test_guide_producer_with_callbacks(snippets: Snippets) -> None:
    snippets.run("""
from kafka import KafkaProducer
from kafka.errors import KafkaError

producer = KafkaProducer(bootstrap_servers=[DIRECTORY])
future = producer.send('my-topic', b'raw_bytes')
try:
    record_metadata = future.get(timeout=10)
except KafkaError:
    raise
print (record_metadata.topic)
print (record_metadata.partition)
print (record_metadata.offset)

def on_send_success(record_metadata):
    print(record_metadata.offset)

def on_send_error(excp):
    print(excp)

producer.send('my-topic', b'raw_bytes').add_callback(on_send_success).add_errback(on_send_error)
producer.flush()
producer.close()

producer = KafkaProducer(retries=5, bootstrap_servers=[DIRECTORY])
""")
    assert snippets.printed == ["my-topic", 0, 0, 1]


def test_guide_consumer_that_commits_by_hand(snippets: Snippets) -> None:
    with feeding(snippets.directory, "my-topic", b"news"):
        names = snippets.run(
            """
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
consumer = KafkaConsumer('my-topic',
                         group_id='my-group',
                         enable_auto_commit=False,
                         bootstrap_servers=[DIRECTORY])
for message in consumer:
    tp = TopicPartition(message.topic, message.partition)
    consumer.commit({
        tp: OffsetAndMetadata(message.offset + 1, '', -1)
    })
    print ("%s:%d:%d: key=%s value=%s" % (message.topic, message.partition,
                                          message.offset, message.key,
                                          message.value))
""",
            prints=2,
        )
    last = names["message"].offset
    assert snippets.printed[-1] == f"my-topic:0:{last}: key=None value=b'news'"
    assert names["consumer"].committed(TopicPartition("my-topic", 0)) == last + 1


def test_guide_consumer_options(snippets: Snippets) -> None:
    names = snippets.run("""
from kafka import KafkaConsumer, DefaultSerializer
KafkaConsumer(auto_offset_reset='earliest', enable_auto_commit=False, bootstrap_servers=DIRECTORY).close()
KafkaConsumer(value_deserializer=DefaultSerializer('utf-16'), bootstrap_servers=DIRECTORY).close()
consumer = KafkaConsumer(consumer_timeout_ms=1, bootstrap_servers=DIRECTORY)
consumer.subscribe(pattern='^awesome.*')
rest = list(consumer)
""")
    assert names["rest"] == []


def test_guide_admin(snippets: Snippets) -> None:
    with KafkaProducer(bootstrap_servers=snippets.directory) as producer:
        producer.send("read", b"x")
    with KafkaConsumer(
        "read",
        bootstrap_servers=snippets.directory,
        group_id="cft-plt-qa.connect",
        auto_offset_reset="earliest",
        consumer_timeout_ms=100,
    ) as consumer:
        list(consumer)
    names = snippets.run("""
from kafka import KafkaAdminClient

admin = KafkaAdminClient(bootstrap_servers=[DIRECTORY])
admin.create_topics(['testtopic1'], timeout_ms=None, validate_only=False)
new_topics = {
    'testtopic2': {
        'num_partitions': 1,
        'replication_factor': 1,
        'assignments': {0: [1]},
        'configs': {'max_message_bytes': '1000000'},
    }
}
admin.create_topics(new_topics, timeout_ms=None, validate_only=False)
admin.delete_topics(['testtopic1'])
print(admin.list_groups())
print(admin.describe_groups(['cft-plt-qa.connect']))
print(admin.list_group_offsets(['cft-plt-qa.connect']))
""")
    groups, described, offsets = snippets.printed
    assert [group["group_id"] for group in groups] == ["cft-plt-qa.connect"]
    assert described["cft-plt-qa.connect"]["group_state"] == "Empty"
    assert offsets["cft-plt-qa.connect"][TopicPartition("read", 0)].offset == 1
    assert set(names["admin"].list_topics()) == {"__consumer_offsets", "read", "testtopic2"}
