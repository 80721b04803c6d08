"""Every record that a real broker stored is read as a real consumer read it, by every way pylog has of reading."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import pylog
from pylog import OffsetOutOfRangeError, TopicPartition

from .golden import PARTITIONS, SIDES, Expected, Row, column_rows, dumped_records, expected, name, row, rows

SEEKS_MAX = 150

every_partition = pytest.mark.parametrize("tp", PARTITIONS, ids=name)
both_sides = pytest.mark.parametrize("side", SIDES)
both_levels = pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
Logs = dict[str, pylog.Log]


def level(committed: bool) -> pylog._types.Isolation:
    return "read_committed" if committed else "read_uncommitted"


def polled(consumer: pylog.Consumer, tp: TopicPartition, end: int, max_records: int | None = None) -> list[Row]:
    """All that poll gives up to the end, which it must reach."""
    got: list[Row] = []
    while batch := consumer.poll(timeout_ms=0, max_records=max_records):
        assert set(batch) == {tp}
        assert max_records is None or len(batch[tp]) <= max_records
        got += rows(batch[tp])
    assert consumer.position(tp) == end  # also where the last batches are control records
    return got


def test_the_tests_name_every_partition_of_the_golden_file(golden: Path) -> None:
    there = {path.name.split(".")[0] for path in (golden / "expected").glob("*.jsonl")}
    assert there == {name(tp) for tp in PARTITIONS}


@both_sides
@both_levels
@every_partition
def test_read_gives_the_records_of_a_real_consumer(
    golden: Path, golden_logs: Logs, tp: TopicPartition, committed: bool, side: str
) -> None:
    got = rows(golden_logs[side].read(*tp, isolation_level=level(committed)))
    assert got == expected(golden, tp, committed=committed).rows


@both_sides
@both_levels
@every_partition
def test_scan_gives_the_same_records_as_columns(
    golden: Path, golden_logs: Logs, tp: TopicPartition, committed: bool, side: str
) -> None:
    scan = golden_logs[side].scan(*tp, isolation_level=level(committed))
    got = [line for columns in scan for line in column_rows(columns)]
    want = expected(golden, tp, committed=committed).rows
    assert got == [(line.offset, line.timestamp, line.key, line.value) for line in want]


@both_sides
@every_partition
def test_columns_carry_the_same_headers(golden: Path, golden_logs: Logs, tp: TopicPartition, side: str) -> None:
    got = [headers for columns in golden_logs[side].scan(*tp) for headers in columns.headers()]
    read = [record.headers for record in golden_logs[side].read(*tp)]
    assert [tuple(headers) for headers in got] == [tuple(headers) for headers in read]
    assert len(got) == len(expected(golden, tp).rows)


@both_sides
@both_levels
@every_partition
def test_poll_gives_the_same_records_between_the_same_ends(
    golden: Path, golden_logs: Logs, tp: TopicPartition, committed: bool, side: str
) -> None:
    want = expected(golden, tp, committed=committed)
    with golden_logs[side].consumer(isolation_level=level(committed)) as consumer:
        consumer.assign([tp])
        assert consumer.beginning_offsets([tp]) == {tp: want.low}
        assert consumer.end_offsets([tp]) == {tp: want.high}
        assert consumer.position(tp) == want.low
        assert polled(consumer, tp, want.high) == want.rows
        consumer.seek_to_beginning(tp)
        assert polled(consumer, tp, want.high, max_records=7) == want.rows
        consumer.seek_to_end(tp)
        assert consumer.position(tp) == want.high


@both_levels
@every_partition
def test_poll_columns_gives_the_same_records(
    golden: Path, golden_logs: Logs, tp: TopicPartition, committed: bool
) -> None:
    want = expected(golden, tp, committed=committed)
    got: list[tuple[int, int, str | None, str | None]] = []
    with golden_logs["clean"].consumer(isolation_level=level(committed)) as consumer:
        consumer.assign([tp])
        while chunks := consumer.poll_columns(max_bytes=4096):
            got += [line for columns in chunks for line in column_rows(columns)]
        assert consumer.position(tp) == want.high
    assert got == [(line.offset, line.timestamp, line.key, line.value) for line in want.rows]


def seeks(want: Expected) -> list[int]:
    """Offsets to look at: all, or a spread of them, and those beside every gap."""
    spread = range(want.low, want.high, max(1, (want.high - want.low) // SEEKS_MAX))
    gaps = [(before, after) for before, after in itertools.pairwise(want.rows) if after.offset > before.offset + 1]
    beside = [at for before, after in gaps for at in (before.offset + 1, after.offset - 1)]
    return sorted({*spread, *beside[:: max(1, len(beside) // SEEKS_MAX)]})


@both_sides
@both_levels
@every_partition
def test_a_seek_into_a_batch_or_a_gap_lands_on_the_first_record_behind_it(
    golden: Path, golden_logs: Logs, tp: TopicPartition, committed: bool, side: str
) -> None:
    want = expected(golden, tp, committed=committed)
    by_offset = sorted(want.rows)
    with golden_logs[side].consumer(isolation_level=level(committed)) as consumer:
        consumer.assign([tp])
        for at in seeks(want):
            consumer.seek(tp, at)
            assert consumer.position(tp) == at
            got = consumer.poll(max_records=1).get(tp, [])
            behind = next((line for line in by_offset if line.offset >= at), None)
            assert [row(record) for record in got] == [line for line in [behind] if line is not None], f"seek {at}"


@every_partition
def test_a_range_of_offsets_is_read_without_a_record_too_many(
    golden: Path, golden_logs: Logs, tp: TopicPartition
) -> None:
    want = expected(golden, tp)
    at = seeks(want)
    for first, last in zip(at[:: max(1, len(at) // 12)], at[3 :: max(1, len(at) // 12)], strict=False):
        got = rows(golden_logs["killed"].read(*tp, start=first, end=last))
        assert got == [line for line in want.rows if first <= line.offset < last], f"{first} to {last}"


@every_partition
def test_offsets_outside_of_the_log_are_refused(golden: Path, golden_logs: Logs, tp: TopicPartition) -> None:
    want = expected(golden, tp)
    with golden_logs["clean"].consumer(auto_offset_reset="none") as consumer:
        consumer.assign([tp])
        for at in [want.high + 1, *([0, want.low - 1] if want.low > 0 else [])]:
            consumer.seek(tp, at)
            with pytest.raises(OffsetOutOfRangeError, match=str(at)):
                consumer.poll()


@both_sides
def test_a_consumer_of_all_partitions_reads_them_all(golden: Path, golden_logs: Logs, side: str) -> None:
    got: dict[TopicPartition, list[Row]] = {tp: [] for tp in PARTITIONS}
    with golden_logs[side].consumer(*{tp.topic for tp in PARTITIONS}) as consumer:
        assert consumer.assignment() == set(PARTITIONS)
        while polled_now := consumer.poll():
            for tp, records in polled_now.items():
                got[tp] += rows(records)
    for tp in PARTITIONS:
        assert got[tp] == expected(golden, tp).rows, name(tp)


@both_sides
@pytest.mark.parametrize("topic", ["__consumer_offsets", "__transaction_state", "__cluster_metadata"])
def test_the_brokers_own_topics_are_read_as_its_dump_tool_reads_them(
    golden: Path, golden_logs: Logs, topic: str, side: str
) -> None:
    partitions = sorted((golden / "clean").glob(f"{topic}-*"))
    assert partitions
    for partition in partitions:
        want = [line[1:] for line in dumped_records(golden, partition.name) if not line.control]
        got = [
            (record.offset, record.timestamp, size(record.key), size(record.value))
            for record in golden_logs[side].read(topic, int(partition.name.rpartition("-")[2]))
        ]
        if (topic, side) == ("__cluster_metadata", "killed"):
            assert len(got) > len(want) // 2  # it was copied earlier: the controller went on writing
            del want[len(got) :]
        assert got == want, partition.name


def size(data: bytes | None) -> int:
    return -1 if data is None else len(data)
