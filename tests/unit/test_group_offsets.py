"""Committed offsets: what is committed when, in which form, and where a consumer goes on."""

import datetime as dt
import struct
import time
from collections.abc import Mapping
from typing import Any

import pytest

import pylog
from pylog import OffsetAndMetadata, TopicPartition, _native
from pylog._groups.offset_records import UnreadableOffsetError, decode_value, encode_key, encode_value, partition_of
from pylog._groups.offsets import TOPIC

TP = TopicPartition("one", 0)


@pytest.fixture
def one(log: pylog.Log) -> pylog.Log:
    """A log whose topic has one partition of 100 records."""
    log.admin.create_topic("one")
    log.producer().send_many("one", [b"%d" % i for i in range(100)]).get()
    return log


def join(log: pylog.Log, **config: Any) -> pylog.Consumer:
    return log.consumer("one", group_id="g", **config)


def committed(log: pylog.Log, group: str = "g") -> int | None:
    found = log.consumer(group_id=group).committed(TP)
    assert found is None or isinstance(found, int)
    return found


def first_offset(consumer: pylog.Consumer) -> int:
    return consumer.poll(timeout_ms=1000)[TP][0].offset


# -- committing


def test_a_commit_holds_for_the_next_member_and_the_next_process(one: pylog.Log) -> None:
    with join(one, enable_auto_commit=False) as consumer:
        consumer.poll(max_records=30)
        consumer.commit()
        consumer.poll(max_records=30)
    with join(one) as consumer:
        assert first_offset(consumer) == 30
    url = one.url
    one.close()
    with pylog.open(url) as again, again.consumer("one", group_id="g", auto_offset_reset="latest") as consumer:
        assert consumer.committed(TP) == 100
        assert consumer.position(TP) == 100


def test_metadata_and_leader_epoch_come_back(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll()
        consumer.commit({TP: OffsetAndMetadata(7, "noté", 3)})
        assert consumer.committed(TP, metadata=True) == OffsetAndMetadata(7, "noté", 3)
        assert consumer.committed(TP) == 7
        assert consumer.committed(TopicPartition("one", 9)) is None


def test_commit_async_tells_its_callback_in_the_next_call_and_its_future_at_once(one: pylog.Log) -> None:
    told: list[tuple[Mapping[TopicPartition, OffsetAndMetadata], Exception | None]] = []
    with join(one) as consumer:
        consumer.poll(max_records=5)
        future = consumer.commit_async(callback=lambda *what: told.append(what))
        assert future.done()
        assert future.get() is None  # type: ignore[func-returns-value]
        assert told == []
        consumer.poll(max_records=5)
        assert told == [({TP: OffsetAndMetadata(5)}, None)]
        failed = consumer.commit_async({TopicPartition("one", 5): OffsetAndMetadata(1)})
        assert isinstance(failed.exception(), pylog.CommitFailedError)
        with pytest.raises(pylog.CommitFailedError):
            failed.get()


@pytest.mark.parametrize(("wrong", "error"), [("5", TypeError), (None, TypeError), (-1, ValueError), ((), TypeError)])
def test_offsets_that_make_no_sense_are_refused(wrong: Any, error: type[Exception], one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll()
        with pytest.raises(error, match="one"):
            consumer.commit({TP: wrong})
        assert consumer.committed(TP) is None


def test_metadata_too_long_for_the_schema_is_refused(one: pylog.Log) -> None:
    with join(one, enable_auto_commit=False) as consumer:
        consumer.poll()
        with pytest.raises(ValueError, match="at most 32767"):
            consumer.commit({TP: OffsetAndMetadata(1, "x" * 40_000)})


def test_nobody_commits_for_a_partition_that_is_anothers(one: pylog.Log) -> None:
    first, second = join(one), join(one)
    first.poll(max_records=10)
    with pytest.raises(pylog.CommitFailedError, match="one-0"):
        second.commit({TP: OffsetAndMetadata(50)})
    outsider = one.consumer(group_id="g")
    outsider.assign([TP])
    with pytest.raises(pylog.CommitFailedError, match="has members"):
        outsider.commit({TP: OffsetAndMetadata(50)})
    assert committed(one) is None
    first.close()
    second.close()
    outsider.commit({TP: OffsetAndMetadata(50)})
    assert committed(one) == 50


def test_after_a_rebalance_the_one_before_cannot_commit(one: pylog.Log) -> None:
    one.admin.create_topic("two", 2)
    first = one.consumer("two", group_id="g", enable_auto_commit=False)
    first.poll()
    second = one.consumer("two", group_id="g")
    first.poll()
    lost = TopicPartition("two", 1)
    second.poll()
    assert second.assignment() == {lost}
    with pytest.raises(pylog.CommitFailedError, match="two-1"):
        first.commit({lost: OffsetAndMetadata(0)})


# -- automatically


def test_auto_commit_takes_what_earlier_polls_gave(one: pylog.Log) -> None:
    with join(one, auto_commit_interval_ms=0) as consumer:
        consumer.poll(max_records=10)
        assert committed(one) in (None, 0)
        consumer.poll(max_records=10)
        assert committed(one) == 10
        consumer.poll(max_records=10)
        assert committed(one) == 20
    assert committed(one) == 30  # and close the rest


def test_auto_commit_waits_for_its_interval(one: pylog.Log) -> None:
    with join(one, auto_commit_interval_ms=3_600_000) as consumer:
        for _ in range(5):
            consumer.poll(max_records=10)
        assert committed(one) is None
    assert committed(one) == 50


def test_iteration_commits_only_records_before_the_one_in_hand(one: pylog.Log) -> None:
    with join(one, auto_commit_interval_ms=0, max_poll_records=1) as consumer:
        for record in consumer:
            seen = committed(one)
            assert (seen or 0) <= record.offset
            if record.offset == 50:
                assert seen == 50
                break
    assert committed(one) == 51


def test_an_error_in_with_commits_nothing(one: pylog.Log) -> None:
    def fail() -> None:
        with join(one) as consumer:
            consumer.poll()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert committed(one) is None
    consumer = join(one)
    consumer.poll()
    consumer.close(autocommit=False)
    assert committed(one) is None


def test_without_auto_commit_nothing_is_committed_by_itself(one: pylog.Log) -> None:
    with join(one, enable_auto_commit=False, auto_commit_interval_ms=0) as consumer:
        consumer.poll(max_records=10)
        consumer.poll(max_records=10)
    assert committed(one) is None


def test_assigned_partitions_are_committed_too(one: pylog.Log) -> None:
    with one.consumer(group_id="g") as consumer:
        consumer.assign([TP])
        consumer.poll(max_records=10)
    with one.consumer(group_id="g") as consumer:
        consumer.assign([TP])
        assert first_offset(consumer) == 10


# -- where to begin


def test_a_committed_offset_goes_before_auto_offset_reset(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll()
        consumer.commit({TP: OffsetAndMetadata(42)})
        consumer.close(autocommit=False)
    for reset in ("earliest", "latest", "none"):
        with join(one, auto_offset_reset=reset, enable_auto_commit=False) as consumer:
            assert first_offset(consumer) == 42


def test_without_a_committed_offset_auto_offset_reset_decides(one: pylog.Log) -> None:
    with one.consumer("one", group_id="e", auto_offset_reset="earliest") as consumer:
        assert first_offset(consumer) == 0
    with one.consumer("one", group_id="l", auto_offset_reset="latest") as consumer:
        assert consumer.poll() == {}
        one.producer().send("one", b"new").get()
        assert first_offset(consumer) == 100
    with one.consumer("one", group_id="n", auto_offset_reset="none") as consumer:
        with pytest.raises(pylog.NoOffsetForPartitionError, match="one-0"):
            consumer.poll()
        consumer.seek(TP, 5)
        assert first_offset(consumer) == 5


@pytest.mark.parametrize(("at", "earliest"), [(500, 30), (3, 30)])
def test_a_committed_offset_out_of_range_is_handled_by_auto_offset_reset(
    at: int, earliest: int, one: pylog.Log
) -> None:
    with join(one) as consumer:
        consumer.poll()
        consumer.commit({TP: OffsetAndMetadata(at)})
        consumer.close(autocommit=False)
    one.admin.delete_records({TP: 30})
    consumer = join(one, auto_offset_reset="none", enable_auto_commit=False)
    with pytest.raises(pylog.OffsetOutOfRangeError, match=str(at)):
        consumer.poll()
    consumer.close()
    with join(one, auto_offset_reset="earliest", enable_auto_commit=False) as consumer:
        assert first_offset(consumer) == earliest
    with join(one, auto_offset_reset="latest", enable_auto_commit=False) as consumer:
        assert consumer.poll() == {}
        assert consumer.position(TP) == 100


# -- administration


def test_a_group_without_members_can_be_sent_elsewhere(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll()
        with pytest.raises(pylog.NonEmptyGroupError, match="'g'"):
            one.admin.reset_group_offsets("g", "earliest", ["one"])
        with pytest.raises(pylog.NonEmptyGroupError, match="'g'"):
            one.admin.delete_groups(["g"])
    assert one.admin.reset_group_offsets("g", "earliest") == {TP: 0}
    assert one.admin.reset_group_offsets("g", "latest") == {TP: 100}
    assert one.admin.reset_group_offsets("g", {TP: 5}) == {TP: 5}
    assert committed(one) == 5
    long_ago = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
    assert one.admin.reset_group_offsets("g", long_ago) == {TP: 0}
    assert one.admin.reset_group_offsets("g", dt.datetime(2200, 1, 1, tzinfo=dt.UTC)) == {TP: 100}
    assert one.admin.reset_group_offsets("unborn", "latest", ["one"]) == {TP: 100}
    assert committed(one, "unborn") == 100


@pytest.mark.parametrize("to", [{TP: 101}, {TP: -1}, dt.datetime(2020, 1, 1), "middle"])
def test_a_group_is_not_sent_nowhere(to: Any, one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll(max_records=9)
    with pytest.raises(ValueError, match=r"one-0|timezone"):
        one.admin.reset_group_offsets("g", to)
    assert committed(one) == 9


def test_unknown_groups_are_errors_that_name_them(one: pylog.Log) -> None:
    with pytest.raises(pylog.GroupIdNotFoundError, match="'nobody'"):
        one.admin.reset_group_offsets("nobody", "earliest")
    with pytest.raises(pylog.GroupIdNotFoundError, match="'nobody'"):
        one.admin.delete_groups(["nobody"])
    with pytest.raises(pylog.GroupIdNotFoundError, match="'nobody'"):
        one.admin.describe_groups(["nobody"])


def test_a_deleted_group_has_no_offsets(one: pylog.Log) -> None:
    for group in ("g", "h"):
        with one.consumer("one", group_id=group) as consumer:
            consumer.poll()
    assert one.admin.list_groups() == ["g", "h"]
    one.admin.delete_groups(["g"])
    assert one.admin.list_groups() == ["h"]
    assert committed(one) is None
    with join(one) as consumer:
        assert first_offset(consumer) == 0


def test_a_deleted_topics_offsets_go_with_it(one: pylog.Log) -> None:
    one.admin.create_topic("two")
    one.producer().send("two", b"x").get()
    with one.consumer("one", "two", group_id="g") as consumer:
        while consumer.poll():
            pass
    one.admin.delete_topics(["one"])
    assert set(one.admin.describe_groups()["g"]["offsets"]) == {TopicPartition("two", 0)}


# -- the schema


def test_a_groups_partition_is_kafkas() -> None:
    # Java's hashCode: of "abc" 96354; of the third -2**31, whose absolute value Kafka takes as 0; of the last below 0.
    assert partition_of("abc", 50) == 96354 % 50
    assert partition_of("", 50) == 0
    assert partition_of("polygenelubricants", 50) == 0
    assert partition_of("hello world", 50) == 1794106052 % 50
    assert partition_of("zzzzzz", 50) == abs(((122 * (31**6 - 1) // 30) & 0xFFFFFFFF) - (1 << 32)) % 50


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (struct.pack(">hqh1sq", 0, 5, 1, b"m", 9), OffsetAndMetadata(5, "m")),
        (struct.pack(">hqh1sqq", 1, 5, 1, b"m", 9, 10), OffsetAndMetadata(5, "m")),
        (struct.pack(">hqh1sq", 2, 5, 1, b"m", 9), OffsetAndMetadata(5, "m")),
        (struct.pack(">hqih1sq", 3, 5, 2, 1, b"m", 9), OffsetAndMetadata(5, "m", 2)),
        (struct.pack(">hqiB1sqB", 4, 5, 2, 2, b"m", 9, 0), OffsetAndMetadata(5, "m", 2)),
        (struct.pack(">hqiB1sqBBB16s", 4, 5, 2, 2, b"m", 9, 1, 0, 16, bytes(16)), OffsetAndMetadata(5, "m", 2)),
    ],
)
def test_each_version_of_the_value_is_read(value: bytes, expected: OffsetAndMetadata) -> None:
    assert decode_value(value) == expected


def append(log: pylog.Log, *records: tuple[bytes, bytes | None], **header: int) -> None:
    number = partition_of("g", 50)
    builder = _native.BatchBuilder(1 << 16)
    for key, value in records:
        builder.append(value, key, None, int(time.time() * 1000))
    log.topic(TOPIC).partition(number).native.append(builder.finish(**header))


def test_records_of_other_kinds_and_newer_versions_harm_nobody_else(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll(max_records=4)
    other = TopicPartition("other", 0)
    append(
        one,
        (struct.pack(">hh1s", 2, 1, b"g"), b"metadata of a group"),
        (struct.pack(">hh1s", 3, 1, b"g"), b"a newer protocol's"),
        (b"", b"no key to speak of"),
        (encode_key("g", other), struct.pack(">hq", 9, 1)),
    )
    assert committed(one) == 4
    with pytest.raises(UnreadableOffsetError, match=r"'g', other-0.*version 9"):
        one.consumer(group_id="g").committed(other)


def test_offsets_of_a_transaction_count_once_it_is_committed(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll(max_records=4)
    transactional = {"attributes": 0x10, "producer_epoch": 0, "base_sequence": 0}
    append(one, (encode_key("g", TP), encode_value(OffsetAndMetadata(10))), producer_id=7, **transactional)
    append(one, (encode_key("g", TP), encode_value(OffsetAndMetadata(20))), producer_id=8, **transactional)
    assert committed(one) == 4
    marker = struct.pack(">hi", 0, 0)
    append(one, (struct.pack(">hh", 0, 0), marker), attributes=0x30, producer_id=7, producer_epoch=0)
    assert committed(one) == 4
    append(one, (struct.pack(">hh", 0, 1), marker), attributes=0x30, producer_id=8, producer_epoch=0)
    assert committed(one) == 20


def test_another_process_sees_what_was_committed(one: pylog.Log) -> None:
    with pylog.open(one.url) as other:
        assert committed(other) is None
        with join(one) as consumer:
            consumer.poll(max_records=11)
        assert committed(other) == 11


def test_the_offsets_topic_has_kafkas_settings(one: pylog.Log) -> None:
    with join(one) as consumer:
        consumer.poll()
    (described,) = one.admin.describe_topics([TOPIC])
    assert len(described["partitions"]) == 50
    assert described["config"]["cleanup_policy"] == "compact"
