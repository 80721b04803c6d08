"""Producer: what is sent is what is read, and when it is there."""

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition

ZERO = TopicPartition("orders", 0)
EVERY_CODEC = [None, "gzip", "snappy", "lz4", "zstd"]


def values(log: pylog.Log) -> list[bytes]:
    return [record.value for record in log.read("orders")]


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("codec", EVERY_CODEC)
def test_all_fields_of_a_record_come_back(codec: Any, log: pylog.Log) -> None:
    sent = [
        (b"value", b"key", [("a", b"1"), ("a", None), ("", b"")], 1_700_000_000_123),
        (b"", b"", [], 0),
        (None, b"key", [("ü", bytes(300))], 2**62),
        (b"x" * 100_000, None, [], 5),
    ]
    with log.producer(compression_type=codec) as producer:
        for value, key, headers, timestamp in sent:
            producer.send("orders", value, key, headers, timestamp_ms=timestamp)
    read = [(r.value, r.key, list(r.headers), r.timestamp) for r in log.read("orders")]
    assert read == sent
    assert [(r.topic, r.partition, r.offset, r.timestamp_type) for r in log.read("orders")] == [
        ("orders", 0, offset, 0) for offset in range(4)
    ]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_every_bytes_like_is_taken_and_goes_where_its_bytes_go(kind: Any, log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=7)
    with log.producer() as producer:
        plain = producer.send("orders", b"value", key=b"some key").get()
        other = producer.send("orders", kind(b"value"), key=kind(b"some key")).get()
    assert other.partition == plain.partition
    assert [(r.key, r.value) for r in log.read("orders")] == [(b"some key", b"value")] * 2


def test_a_buffer_that_is_changed_after_send_changes_no_record(log: pylog.Log) -> None:
    producer, buffer = log.producer(linger_ms=60_000), bytearray(b"before")
    producer.send("orders", buffer)
    buffer[:] = b"after!"
    producer.flush()
    assert values(log) == [b"before"]


def test_a_record_without_a_timestamp_gets_the_clock_s(log: pylog.Log) -> None:
    before = time.time_ns() // 1_000_000
    for sent in (log.producer().send("orders", b"x"), log.producer().send_many("orders", [b"x"])):
        sent.get()
    after = time.time_ns() // 1_000_000
    assert all(before <= record.timestamp <= after for record in log.read("orders"))


def test_log_append_time_is_the_log_s_whatever_the_record_says(tmp_path: Path) -> None:
    with pylog.open(tmp_path, message_timestamp_type="LogAppendTime") as log:
        before = time.time_ns() // 1_000_000
        metadata = log.producer().send("orders", b"x", timestamp_ms=5).get()
        (record,) = log.read("orders")
    assert before <= record.timestamp == metadata.timestamp
    assert record.timestamp_type == 1


def test_send_says_where_the_record_went(log: pylog.Log) -> None:
    producer = log.producer()
    first, second = producer.send("orders", b"1", timestamp_ms=7), producer.send("orders", b"2", timestamp_ms=8)
    assert second.get() == ("orders", 0, 1, 8)
    assert first.get() == ("orders", 0, 0, 7)
    assert producer.send("orders", b"3").get().offset == 2


# -- send_many and send_columns


def test_send_many_equals_send_for_each(log: pylog.Log) -> None:
    keys = [b"a", None, b"b", b"", None] * 50
    many = [b"%d" % i if i % 7 else None for i in range(250)]
    headers = [("source", b"test")]
    log.admin.create_topic("orders", partitions=3)
    log.admin.create_topic("singly", partitions=3)
    with log.producer(batch_size=500) as producer:
        producer.send_many("orders", many, keys, timestamps_ms=range(250), headers=headers)
        for i in range(250):
            producer.send("singly", many[i], keys[i], headers, timestamp_ms=i)
    fields = [
        [(r.partition, r.offset, r.key, r.value, r.timestamp, list(r.headers)) for r in log.read(topic)]
        for topic in ("orders", "singly")
    ]
    assert fields[0] == fields[1]


def test_send_many_says_where_all_went_in_their_order(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=2)
    producer = log.producer(batch_size=200)
    assert producer.send_many("orders", [b"x" * 30] * 40).get() == {
        TopicPartition("orders", 0): [range(20)],
        TopicPartition("orders", 1): [range(20)],
    }
    assert producer.send_many("orders", [b"y"], partition=1).get() == {TopicPartition("orders", 1): [range(20, 21)]}
    assert producer.send_many("orders", []).get() == {}


def test_send_many_takes_any_iterable_once(log: pylog.Log) -> None:
    log.producer().send_many("orders", (b"%d" % i for i in range(5)), iter([b"k"] * 5)).get()
    assert values(log) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("codec", EVERY_CODEC)
def test_send_columns_gives_the_bytes_of_each_row(codec: Any, log: pylog.Log) -> None:
    rows = np.zeros(1000, np.dtype([("id", "<i8"), ("price", "<f8")]))
    rows["id"] = np.arange(1000)
    times = np.arange(1000) + 1_700_000_000_000
    with log.producer(compression_type=codec, batch_size=2000) as producer:
        sent = producer.send_columns("orders", rows, rows["id"].astype("S8"), timestamps_ms=times)
    assert sent.get() == {ZERO: [range(1000)]}
    read = list(log.read("orders"))
    assert b"".join(record.value for record in read) == rows.tobytes()
    assert [record.timestamp for record in read] == times.tolist()
    assert [record.key.rstrip(b"\0") for record in read] == [b"%d" % i for i in range(1000)]


def test_send_columns_and_send_keep_their_order(log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000)
    producer.send("orders", b"1")
    producer.send_columns("orders", np.array([b"2", b"3"]))
    producer.send("orders", b"4")
    producer.flush()
    assert values(log) == [b"1", b"2", b"3", b"4"]


# -- when it is there


def test_what_is_sent_is_there_after_linger_without_any_call(log: pylog.Log) -> None:
    producer = log.producer(linger_ms=10)
    future = producer.send("orders", b"x")
    assert not future.done()
    wait_until(future.done)
    assert values(log) == [b"x"]


def test_before_linger_nothing_is_there_but_get_and_flush_do_not_wait_for_it(log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000)
    producer.send("orders", b"1")
    time.sleep(0.05)
    assert values(log) == []
    start = time.monotonic()
    producer.send("orders", b"2").get()
    assert values(log) == [b"1", b"2"]
    producer.send("orders", b"3")
    producer.flush()
    assert values(log) == [b"1", b"2", b"3"]
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("batch_size", [0, 1, 100, 1000])
def test_a_full_batch_does_not_wait_and_no_batch_is_much_over_its_size(batch_size: int, log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000, batch_size=batch_size)
    for i in range(200):
        producer.send("orders", b"%090d" % i)
    there = values(log)
    assert len(there) >= 200 - max(batch_size // 100, 1)
    producer.flush()
    assert values(log) == [b"%090d" % i for i in range(200)]
    with log.consumer("orders") as consumer:
        assert sum(len(columns) for columns in consumer.poll_columns()) == 200


def test_buffer_memory_bounds_the_open_batches(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=10)
    producer = log.producer(linger_ms=60_000, batch_size=1000, buffer_memory=3000)
    for partition in range(10):
        producer.send("orders", b"x", partition=partition)
    assert len(values(log)) >= 7


def test_acks_all_means_on_the_disk_and_acks_1_does_not(tmp_path: Path) -> None:
    with pylog.open(tmp_path, flush_ms=None) as log:
        log.producer(acks=1).send("orders", b"1").get()
        assert log.flushed_offsets([ZERO]) == {ZERO: 0}
        log.producer(acks="all").send("orders", b"2").get()
        assert log.flushed_offsets([ZERO]) == {ZERO: 2}
        log.producer(acks="all").send_many("orders", [b"3", b"4"]).get()
        assert log.flushed_offsets([ZERO]) == {ZERO: 4}


def test_acks_all_is_acknowledged_without_being_asked(log: pylog.Log) -> None:
    future = log.producer(acks="all", linger_ms=0).send("orders", b"x")
    wait_until(future.done)
    assert log.flushed_offsets([ZERO]) == {ZERO: 1}


def test_acks_0_is_done_at_once_and_sent_all_the_same(log: pylog.Log) -> None:
    producer = log.producer(acks=0, linger_ms=60_000)
    future = producer.send("orders", b"x")
    assert future.done()
    assert future.get().offset == -1
    producer.flush()
    assert values(log) == [b"x"]


# -- topics that change


def test_auto_create_makes_the_topic_with_num_partitions(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=3) as log:
        producer = log.producer()
        producer.send("orders", b"x")
        assert producer.partitions_for("orders") == {0, 1, 2}


@pytest.mark.parametrize("method", ["send", "send_many", "send_columns", "partitions_for"])
def test_without_auto_create_an_unknown_topic_is_an_error_and_stays_unknown(method: str, tmp_path: Path) -> None:
    arguments = {"send": [b"x"], "send_many": [[b"x"]], "send_columns": [np.array([b"x"])], "partitions_for": []}
    with pylog.open(tmp_path, auto_create_topics=False) as log:
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="no topic 'orders'"):
            getattr(log.producer(), method)("orders", *arguments[method])
        assert log.admin.list_topics() == []


def test_a_producer_sees_partitions_that_were_added(log: pylog.Log) -> None:
    producer = log.producer()
    producer.send("orders", b"1").get()
    log.admin.create_partitions({"orders": 2})
    assert producer.send("orders", b"2", partition=1).get()[:3] == ("orders", 1, 0)
    assert producer.partitions_for("orders") == {0, 1}


def test_a_producer_goes_on_in_a_topic_that_was_made_anew(log: pylog.Log) -> None:
    producer = log.producer()
    producer.send("orders", b"old").get()
    log.admin.delete_topics(["orders"])
    assert producer.send("orders", b"new").get().offset == 0
    assert values(log) == [b"new"]


def test_a_smaller_size_limit_makes_smaller_batches_not_failures(log: pylog.Log) -> None:
    producer = log.producer()
    producer.send("orders", b"x").get()
    log.admin.alter_configs("orders", max_message_bytes=1000)
    producer.send_many("orders", [b"x" * 100] * 100).get()
    assert len(values(log)) == 101


def test_a_compacted_topic_takes_no_record_without_a_key(tmp_path: Path) -> None:
    with pylog.open(tmp_path, cleanup_policy="compact") as log:
        producer = log.producer()
        producer.send("orders", b"x", key=b"k")
        for refused in (
            lambda: producer.send("orders", b"x"),
            lambda: producer.send_many("orders", [b"x"]),
            lambda: producer.send_many("orders", [b"x", b"y"], [b"k", None]),
            lambda: producer.send_columns("orders", np.array([b"x"])),
        ):
            with pytest.raises(ValueError, match="compacted: a record needs a key"):
                refused()
        producer.flush()
        assert [(r.key, r.value) for r in log.read("orders")] == [(b"k", b"x")]


def test_a_compacted_topic_takes_no_null_key_with_a_partition_either(tmp_path: Path) -> None:
    with pylog.open(tmp_path, cleanup_policy="compact") as log:
        producer = log.producer(linger_ms=60_000)
        producer.send("orders", b"x", key=b"k")
        with pytest.raises(ValueError, match="compacted: a record needs a key"):
            producer.send("orders", b"x", partition=0)


def test_a_topic_s_own_codec_wins_over_the_producer_s(log: pylog.Log, tmp_path: Path) -> None:
    log.admin.create_topic("orders", compression_type="uncompressed")
    log.admin.create_topic("packed", compression_type="lz4")
    with log.producer(compression_type="gzip") as zipping, log.producer() as plain:
        zipping.send("orders", bytes(1000))
        plain.send("packed", bytes(1000))
    sizes = {name: (tmp_path / "data" / f"{name}-0" / f"{0:020d}.log").stat().st_size for name in ("orders", "packed")}
    assert sizes["orders"] > 1000 > 200 > sizes["packed"]


# -- serializers


def test_serializers_make_the_bytes_and_never_see_null(log: pylog.Log) -> None:
    seen: list[Any] = []

    def serialize(value: Any) -> bytes:
        seen.append(value)
        return str(value).encode()

    with log.producer(value_serializer=serialize, key_serializer="json") as producer:
        producer.send("orders", 5, key={"id": 1})
        producer.send("orders", None, key=None)
        producer.send_many("orders", [6, None], [[1], None])
    assert seen == [5, 6]
    read = [(r.key, r.value) for r in log.read("orders")]
    assert read == [(b'{"id":1}', b"5"), (None, None), (b"[1]", b"6"), (None, None)]


def test_a_serializer_that_fails_or_makes_no_bytes_loses_nothing_of_the_others(log: pylog.Log) -> None:
    with log.producer(value_serializer=lambda value: 10 // value if value != 5 else b"five") as producer:
        producer.send("orders", 5)
        with pytest.raises(ZeroDivisionError):
            producer.send("orders", 0)
        with pytest.raises(TypeError, match="value must be bytes-like or None, not int"):
            producer.send("orders", 2)
        producer.send("orders", 5)
    assert values(log) == [b"five", b"five"]


# -- closing


def test_close_sends_what_is_buffered_and_then_refuses(log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000)
    producer.send("orders", b"x")
    producer.close()
    producer.close()
    assert values(log) == [b"x"]
    for call in (
        lambda: producer.send("orders", b"y"),
        lambda: producer.send_many("orders", [b"y"]),
        lambda: producer.send_columns("orders", np.array([b"y"])),
        lambda: producer.partitions_for("orders"),
        producer.flush,
    ):
        with pytest.raises(pylog.ClosedError, match="producer is closed"):
            call()


def test_closing_the_log_sends_what_its_producers_buffer(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log:
        producer = log.producer(linger_ms=60_000)
        producer.send("orders", b"x")
    with pytest.raises(pylog.ClosedError):
        producer.send("orders", b"y")
    with pylog.open(tmp_path) as log:
        assert values(log) == [b"x"]


def test_a_dropped_producer_still_sends(log: pylog.Log) -> None:
    log.producer(linger_ms=20).send("orders", b"soon")
    log.producer(linger_ms=60_000).send("orders", b"at close")
    gc.collect()
    wait_until(lambda: values(log) == [b"soon"])
    log.close()
    with pylog.open(log.url) as again:
        assert sorted(values(again)) == [b"at close", b"soon"]


def test_interpreter_exit_without_close_sends_what_is_buffered(run_script: Any, tmp_path: Path) -> None:
    done = run_script(
        """
        import pylog
        log = pylog.open("data")
        log.producer(linger_ms=60_000).send("orders", b"x")
        kept = log.producer(linger_ms=60_000, compression_type="lz4", acks="all")
        kept.send("orders", b"y" * 1000)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pylog.open(tmp_path / "data") as log:
        assert sorted(values(log)) == [b"x", b"y" * 1000]
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


def test_an_exception_that_ends_the_program_loses_nothing(run_script: Any, tmp_path: Path) -> None:
    done = run_script("import pylog\np = pylog.open('data').producer(linger_ms=1e6)\np.send('orders', b'x')\n1 / 0")
    assert "ZeroDivisionError" in done.stderr
    with pylog.open(tmp_path / "data") as log:
        assert values(log) == [b"x"]


@pytest.mark.parametrize("acks", [1, "all"])
def test_an_append_is_no_failure_where_its_flush_cannot_be_scheduled(
    acks: Any, log: pylog.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = log.producer(acks=acks, linger_ms=60_000)
    future = producer.send("orders", b"1")

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(log.flusher, "note_append", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        producer.flush()
    monkeypatch.undo()
    assert future.get(10).offset == 0
    assert [record.value for record in log.read("orders")] == [b"1"]
