"""Producer: bad input, and failures of the system, each told to somebody."""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition

BAD_FIELDS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"value": "text"}, TypeError, "value must be bytes-like or None, not str; set value_serializer"),
    ({"value": 5}, TypeError, "value must be bytes-like or None, not int"),
    ({"value": [b"x"]}, TypeError, "value must be bytes-like or None, not list"),
    ({"key": "text"}, TypeError, "key must be bytes-like or None, not str; set key_serializer"),
    ({"key": 3}, TypeError, "key must be bytes-like or None, not int"),
    ({"key": "text", "partition": 0}, TypeError, "key must be bytes-like or None, not str"),
    ({"headers": [("a", "text")]}, TypeError, r"headers\[0\]: value must be bytes-like or None, not str"),
    ({"headers": [("a", b""), (b"a", b"")]}, TypeError, r"headers\[1\]: key must be str, not bytes"),
    ({"headers": {"a": b""}}, TypeError, "headers must be None or a sequence of .* not dict"),
    ({"headers": "ab"}, TypeError, "headers must be None or a sequence of .* not str"),
    ({"headers": [("a",)]}, TypeError, r"headers\[0\] must be a \(str, bytes-like or None\) pair"),
    ({"timestamp_ms": -1}, ValueError, "timestamp must be 0 or more milliseconds since 1970, not -1"),
    ({"timestamp_ms": 1.5}, TypeError, "timestamp must be an int of milliseconds"),
    ({"timestamp_ms": "now"}, TypeError, "timestamp must be an int of milliseconds"),
    ({"timestamp_ms": 2**63}, OverflowError, "too large"),
    ({"partition": 2}, pylog.UnknownTopicOrPartitionError, "partition 2, topic orders has 0 to 1"),
    ({"partition": -1}, pylog.UnknownTopicOrPartitionError, "partition -1, topic orders has 0 to 1"),
    ({"partition": 2**70}, pylog.UnknownTopicOrPartitionError, "topic orders has 0 to 1"),
    ({"partition": True}, TypeError, "not an int"),
    ({"partition": "0"}, TypeError, "not an int"),
]

BAD_COLUMNS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"values": [b"a"]}, TypeError, "values must be a numpy array or an Arrow array, not list"),
    ({"values": np.array(["a"])}, TypeError, "values: numpy values of type <U1 have no fixed bytes"),
    ({"values": np.array([b"a"], object)}, TypeError, "values: numpy values of type object"),
    ({"keys": [b"a"]}, TypeError, "keys must be a numpy array"),
    ({"keys": np.array([b"a", b"b"])}, ValueError, "keys has 2 items, values has 1"),
    ({"timestamps_ms": np.array([1, 2])}, ValueError, "timestamps_ms has 2 items, values has 1"),
    ({"timestamps_ms": np.array([-1])}, ValueError, "timestamps_ms: item 0 is negative: -1"),
    ({"timestamps_ms": np.array([1.5])}, TypeError, "timestamps_ms must be integers or datetime64"),
    ({"partition": 2}, pylog.UnknownTopicOrPartitionError, "partition 2, topic orders has 0 to 1"),
]


def values(log: pylog.Log, topic: str = "orders") -> list[bytes]:
    return [record.value for record in log.read(topic)]


@pytest.fixture
def producer(log: pylog.Log) -> pylog.Producer:
    log.admin.create_topic("orders", partitions=2)
    return log.producer(linger_ms=60_000)


# -- wrong types and values


@pytest.mark.parametrize("batch_is_open", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(("fields", "error", "text"), BAD_FIELDS)
def test_a_bad_field_is_named_and_the_other_records_go_on(
    fields: dict[str, Any],
    error: type[Exception],
    text: str,
    batch_is_open: bool,
    log: pylog.Log,
    producer: pylog.Producer,
) -> None:
    good = [b"0", b"1"]
    if batch_is_open:
        for i in range(2):
            producer.send("orders", good[i], partition=i)
    with pytest.raises(error, match=text):
        producer.send("orders", **{"value": b"bad", **fields})
    if not batch_is_open:
        for i in range(2):
            producer.send("orders", good[i], partition=i)
    producer.flush()
    assert values(log) == good


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"values": [b"a", "b"]}, TypeError, r"values\[1\] must be bytes-like or None, not str"),
        ({"values": b"bytes"}, TypeError, "an iterable of records is expected, not one bytes"),
        ({"values": "text"}, TypeError, "an iterable of records is expected, not one str"),
        ({"values": None}, TypeError, "not iterable"),
        ({"keys": [b"a", 5]}, TypeError, r"keys\[1\] must be bytes-like or None, not int"),
        ({"keys": [b"a"]}, ValueError, "keys has 1 items, values has 2"),
        ({"keys": b"ab"}, TypeError, "an iterable of records is expected, not one bytes"),
        ({"timestamps_ms": [1]}, ValueError, "timestamps_ms has 1 items, values has 2"),
        ({"timestamps_ms": [1, -5]}, ValueError, "negative: -5"),
        ({"timestamps_ms": [1, "x"]}, TypeError, "str"),
        ({"headers": [("a", 5)]}, TypeError, r"headers\[0\]: value must be bytes-like or None, not int"),
        ({"partition": 2}, pylog.UnknownTopicOrPartitionError, "partition 2, topic orders has 0 to 1"),
    ],
)
def test_many_with_a_bad_item_are_refused_as_a_whole(
    arguments: dict[str, Any], error: type[Exception], text: str, log: pylog.Log, producer: pylog.Producer
) -> None:
    producer.send("orders", b"before", partition=0)
    with pytest.raises(error, match=text):
        producer.send_many("orders", **{"values": [b"a", b"b"], **arguments})
    producer.send("orders", b"after", partition=0)
    producer.flush()
    assert values(log) == [b"before", b"after"]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD_COLUMNS)
def test_a_bad_column_is_named_and_nothing_is_sent(
    arguments: dict[str, Any], error: type[Exception], text: str, log: pylog.Log, producer: pylog.Producer
) -> None:
    with pytest.raises(error, match=text):
        producer.send_columns("orders", **{"values": np.array([b"a"]), **arguments})
    producer.flush()
    assert values(log) == []


# -- too large


def test_a_record_that_is_too_large_is_refused_with_topic_size_and_limit(tmp_path: Path) -> None:
    with pylog.open(tmp_path, max_message_bytes=1000) as log, log.producer(linger_ms=60_000) as producer:
        producer.send("orders", b"before")
        with pytest.raises(pylog.MessageSizeTooLargeError, match=r"2\d\d\d bytes as a batch, topic orders takes 1000"):
            producer.send("orders", bytes(2000))
        with pytest.raises(pylog.MessageSizeTooLargeError, match=r"values\[1\] takes 2\d\d\d bytes.*takes 1000"):
            producer.send_many("orders", [b"a", bytes(2000), b"c"])
        producer.send("orders", b"after")
        producer.flush()
        assert values(log) == [b"before", b"after"]


def test_the_largest_record_is_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    with pylog.open(tmp_path, max_message_bytes=1000) as log, log.producer() as producer:
        taken = 0
        for size in range(900, 960):
            try:
                producer.send("orders", bytes(size)).get()
                taken = size
            except pylog.MessageSizeTooLargeError:
                break
        assert 900 < taken < 959
        with pytest.raises(pylog.MessageSizeTooLargeError):
            producer.send_many("orders", [bytes(taken + 1)])
        with pytest.raises(pylog.MessageSizeTooLargeError):
            producer.send_columns("orders", np.zeros(1, f"V{taken + 1}")).get()
        producer.send_many("orders", [bytes(taken)]).get()
        producer.send_columns("orders", np.zeros(1, f"V{taken}")).get()
        assert max(map(len, values(log))) == taken


def test_what_compression_makes_small_enough_is_taken_and_the_rest_fails_for_its_future(tmp_path: Path) -> None:
    with pylog.open(tmp_path, max_message_bytes=1000) as log:
        producer = log.producer(compression_type="lz4")
        producer.send("orders", bytes(50_000)).get()
        refused = producer.send("orders", os.urandom(2000))
        with pytest.raises(
            pylog.MessageSizeTooLargeError, match=r"orders-0: the batch takes .* max_message_bytes is 1000"
        ):
            refused.get()
        producer.send("orders", b"after").get()
        assert values(log) == [bytes(50_000), b"after"]


def test_a_segment_limits_a_batch_as_well(tmp_path: Path) -> None:
    with pylog.open(tmp_path, segment_bytes=500) as log, log.producer() as producer:
        with pytest.raises(pylog.MessageSizeTooLargeError, match="topic orders takes 500"):
            producer.send("orders", bytes(600))
        producer.send_many("orders", [bytes(100)] * 50).get()
        assert len(values(log)) == 50


# -- failures that nobody asked about


@pytest.mark.parametrize("acks", [0, 1, "all"])
@pytest.mark.parametrize("end", ["flush", "close", "close of the log", "flush after linger"])
def test_a_failure_nobody_asked_about_is_raised_once(end: str, acks: Any, tmp_path: Path) -> None:
    log = pylog.open(tmp_path)
    producer = log.producer(acks=acks, linger_ms=300 if end == "flush after linger" else 60_000)
    doomed = producer.send("gone", b"x")
    producer.send("kept", b"y")
    log.admin.delete_topics(["gone"])
    if end == "flush after linger":
        while not values(log, "kept") or not doomed.done():
            time.sleep(0.01)
    ends: dict[str, Callable[[], None]] = {"close": producer.close, "close of the log": log.close}
    try:
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="topic gone was deleted"):
            ends.get(end, producer.flush)()
        ends.get(end, producer.flush)()
    finally:
        log.close()
    with pylog.open(tmp_path) as again:
        assert values(again, "kept") == [b"y"]


@pytest.mark.parametrize("ask", ["get", "exception", "add_done_callback", "add_errback"])
def test_a_failure_that_somebody_saw_is_not_raised_again(ask: str, log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000)
    future = producer.send("gone", b"x")
    log.admin.delete_topics(["gone"])
    if ask == "get":
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            future.get()
    elif ask == "exception":
        assert future.exception() is not None
    else:
        getattr(future, ask)(lambda _: None)
    producer.flush()
    producer.close()


def test_a_failure_in_a_dropped_producer_is_raised_when_the_log_is_closed(tmp_path: Path) -> None:
    log = pylog.open(tmp_path)
    producer = log.producer(linger_ms=300)
    future = producer.send("gone", b"x")
    log.admin.delete_topics(["gone"])
    while not future.done():
        time.sleep(0.01)
    del producer, future
    gc.collect()
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match="topic gone was deleted"):
        log.close()


def test_a_failure_at_interpreter_exit_is_said_aloud(run_script: Any) -> None:
    done = run_script(
        """
        import pylog
        log = pylog.open("data")
        log.producer(linger_ms=60_000).send("gone", b"x")
        log.admin.delete_topics(["gone"])
        """
    )
    assert done.stderr == ("pylog: closing data at exit failed: UnknownTopicOrPartitionError: topic gone was deleted\n")


# -- a disk that refuses

FULL = """
    import errno, resource, signal
    import pylog

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = pylog.open("data")
    log.admin.create_topic("orders", partitions=2)
    producer = log.producer(linger_ms=60_000)
    for i in range(10):
        producer.send("orders", b"before %d" % i, partition=0).get()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    unasked = producer.send("orders", bytes(3000), partition=0)
    asked = producer.send("orders", bytes(3000), partition=1)
    try:
        asked.get()
    except pylog.StorageError as error:
        print("get", errno.errorcode[error.errno], error.filename)
    try:
        producer.flush()
    except pylog.StorageError as error:
        print("flush", errno.errorcode[error.errno], error.filename)
    producer.flush()
    print("read", len(list(log.read("orders"))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("room", producer.send("orders", bytes(3000), partition=0).get().offset)
    log.close()
"""


def test_a_full_disk_is_a_clear_error_that_goes_away_when_there_is_room(run_script: Any, tmp_path: Path) -> None:
    done = run_script(FULL)
    assert done.stderr == ""
    get, flush, read, room = done.stdout.splitlines()
    assert get.startswith("get EFBIG ")
    assert get.endswith(f"orders-1/{0:020d}.log")
    assert flush.startswith("flush EFBIG ")
    assert flush.endswith(f"orders-0/{0:020d}.log")
    assert (read, room) == ("read 10", "room 10")
    with pylog.open(tmp_path / "data") as log:
        assert values(log) == [b"before %d" % i for i in range(10)] + [bytes(3000)]
        assert log.topic("orders").partition(0).native.recovery.truncated_bytes == 0


def test_an_append_that_fails_in_the_middle_of_many_is_told_and_keeps_the_others(
    log: pylog.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = log.producer(batch_size=1000)
    native = log.topic_for_sending("orders").partition(0).native
    append, count = native.append, 0

    def fail_second(batch: Any, **how: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise pylog.StorageError(28, "No space left on device", "orders-0")
        return append(batch, **how)

    monkeypatch.setattr(native, "append", fail_second)
    many = producer.send_many("orders", [b"%0100d" % i for i in range(30)])
    with pytest.raises(pylog.StorageError, match="No space"):
        many.get()
    producer.flush()
    read = [int(value) for value in values(log)]
    assert 0 < len(read) < 30
    assert read == sorted(read)
    assert log.consumer().end_offsets([TopicPartition("orders", 0)]) == {("orders", 0): len(read)}


def test_a_failed_flush_fails_those_who_asked_for_the_disk(log: pylog.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = log.producer(acks="all", linger_ms=60_000)
    native = log.topic_for_sending("orders").partition(0).native

    def fail() -> int:
        raise pylog.StorageError(5, "Input/output error", "orders-0")

    asked, unasked = producer.send("orders", b"x"), log.producer(acks="all", linger_ms=60_000).send("orders", b"y")
    with monkeypatch.context() as patched:
        patched.setattr(native, "flush", fail)
        with pytest.raises(pylog.StorageError, match="Input/output"):
            asked.get()
        with pytest.raises(pylog.StorageError, match="Input/output"):
            unasked.batch.producer.flush()
    assert unasked.done()
