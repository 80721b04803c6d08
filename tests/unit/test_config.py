"""Options: unknown ones, values that make no sense, defaults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog._config import consumer_config, producer_config, topic_config

MAKERS: dict[str, Callable[[pylog.Log, dict[str, Any]], object]] = {
    "producer": lambda log, options: log.producer(**options),  # type: ignore[typeddict-item]
    "consumer": lambda log, options: log.consumer(**options),  # type: ignore[typeddict-item]
    "topic": lambda log, options: log.admin.create_topic("orders", **options),  # type: ignore[typeddict-item]
}

BAD_VALUES = [
    ("producer", "acks", 2),
    ("producer", "acks", -1),
    ("producer", "acks", True),
    ("producer", "acks", "1"),
    ("producer", "linger_ms", -1),
    ("producer", "linger_ms", "5"),
    ("producer", "linger_ms", float("nan")),
    ("producer", "batch_size", -1),
    ("producer", "batch_size", 1.5),
    ("producer", "batch_size", 2**31),
    ("producer", "compression_type", "brotli"),
    ("producer", "compression_type", 3),
    ("producer", "partitioner", "sticky"),
    ("producer", "partitioner", 7),
    ("producer", "buffer_memory", 0),
    ("producer", "key_serializer", "xml"),
    ("producer", "value_serializer", 5),
    ("consumer", "auto_offset_reset", "newest"),
    ("consumer", "auto_offset_reset", None),
    ("consumer", "max_poll_records", 0),
    ("consumer", "max_poll_records", True),
    ("consumer", "consumer_timeout_ms", -1),
    ("consumer", "check_crcs", 1),
    ("consumer", "isolation_level", "serializable"),
    ("consumer", "key_deserializer", "xml"),
    ("consumer", "value_deserializer", 5),
    ("topic", "cleanup_policy", "keep"),
    ("topic", "compression_type", "none"),
    ("topic", "retention_ms", -2),
    ("topic", "segment_bytes", 13),
    ("topic", "segment_bytes", 2**31),
    ("topic", "segment_ms", 0),
    ("topic", "index_interval_bytes", -1),
    ("topic", "max_message_bytes", "1M"),
    ("topic", "message_timestamp_type", "createtime"),
    ("topic", "min_cleanable_dirty_ratio", 1.5),
]


@pytest.mark.parametrize("kind", MAKERS)
def test_an_unknown_option_is_a_type_error_that_lists_the_known_ones(kind: str, log: pylog.Log) -> None:
    with pytest.raises(TypeError, match=f"unknown {kind} option 'colour'") as raised:
        MAKERS[kind](log, {"colour": "red"})
    known = {"producer": producer_config, "consumer": consumer_config, "topic": topic_config}[kind]({})
    assert all(name in str(raised.value) for name in known)


def test_an_unknown_option_of_open_is_a_type_error_and_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unknown topic option 'colour'"):
        pylog.open(tmp_path / "data", colour="red")  # type: ignore[call-arg]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("kind", "name", "value"), BAD_VALUES)
def test_a_value_that_makes_no_sense_is_named_with_its_option(kind: str, name: str, value: Any, log: pylog.Log) -> None:
    with pytest.raises(pylog.InvalidConfigurationError, match=name) as raised:
        MAKERS[kind](log, {name: value})
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("read_only", 1),
        ("auto_create_topics", "yes"),
        ("flush_ms", -1),
        ("flush_ms", "1"),
        ("num_partitions", 0),
        ("num_partitions", 1.0),
        ("segment_bytes", 0),
    ],
)
def test_a_bad_value_for_open_is_refused_before_a_directory_is_made(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(pylog.InvalidConfigurationError, match=name):
        pylog.open(tmp_path / "data", **{name: value})
    assert not (tmp_path / "data").exists()


def test_a_url_of_a_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pylog.InvalidConfigurationError, match="kafka://somewhere:9092"):
        pylog.open("kafka://somewhere:9092")


def test_settings_of_open_go_into_the_topics_it_makes_and_those_of_the_topic_win(tmp_path: Path) -> None:
    with pylog.open(tmp_path, segment_bytes=4096, segment_ms=1000) as log:
        log.admin.create_topic("mine", segment_ms=5)
        log.producer().send("theirs", b"x")
        described = {topic["name"]: topic["config"] for topic in log.admin.describe_topics()}
    assert (described["mine"]["segment_bytes"], described["mine"]["segment_ms"]) == (4096, 5)
    assert (described["theirs"]["segment_bytes"], described["theirs"]["segment_ms"]) == (4096, 1000)


def test_settings_of_a_topic_outlive_the_handle_that_made_it(tmp_path: Path) -> None:
    with pylog.open(tmp_path, segment_bytes=4096) as log:
        log.admin.create_topic("orders", partitions=2, max_message_bytes=500)
    with pylog.open(tmp_path, segment_bytes=9999) as log:
        (topic,) = log.admin.describe_topics()
    assert (topic["config"]["segment_bytes"], topic["config"]["max_message_bytes"]) == (4096, 500)
    assert len(topic["partitions"]) == 2


def test_defaults_are_those_that_the_documentation_names() -> None:
    producer, consumer, topic = producer_config({}), consumer_config({}), topic_config({})
    assert (producer["acks"], producer["linger_ms"], producer["batch_size"]) == (1, 5, 262_144)
    assert (consumer["auto_offset_reset"], consumer["max_poll_records"]) == ("earliest", 500)
    assert (topic["segment_bytes"], topic["max_message_bytes"]) == (1 << 30, 1_048_588)
    assert (topic["retention_ms"], topic["index_interval_bytes"]) == (604_800_000, 4096)


@pytest.mark.parametrize("linger_ms", [1e12, float("inf")])
def test_a_linger_beyond_any_clock_sends_at_flush_and_harms_no_other_producer(linger_ms: float, log: pylog.Log) -> None:
    patient, eager = log.producer(linger_ms=linger_ms), log.producer(linger_ms=0)
    patient.send("orders", b"patient")
    future = eager.send("orders", b"eager")
    with log.consumer("orders") as consumer:
        assert [r.value for part in consumer.poll(5000).values() for r in part] == [b"eager"]
    assert future.get(5).offset == 0  # a reader may see the record a moment before its sender is told
    patient.flush()
    assert [record.value for record in log.read("orders")] == [b"eager", b"patient"]
