"""What a broker left, closed or killed, is taken over: recovered, appended to, closed, and found again."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

import pylog
from pylog import TopicPartition

from .golden import (
    PARTITIONS,
    SIDES,
    Row,
    batches,
    check_indexes_mean_the_log,
    copy_topic,
    dumped_records,
    expected,
    name,
    rows,
)

every_partition = pytest.mark.parametrize("tp", PARTITIONS, ids=name)
both_sides = pytest.mark.parametrize("side", SIDES)

SENT = [(b"k", b"appended"), (b"", b""), (b"k2", None), (b"k3", b"x" * 600)]
T0 = 1_800_000_000_000


def log_bytes(partition: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(partition.glob("*.log"))}


def append(log: pylog.Log, tp: TopicPartition, end: int) -> list[Row]:
    """Sends records and gives them back as they must be read; their offsets go on at the end."""
    with log.producer() as producer:
        sent = [
            producer.send(tp.topic, value, key=key, partition=tp.partition, timestamp_ms=T0, headers=[("h", b"1")])
            for key, value in SENT
        ]
        assert [future.get().offset for future in sent] == list(range(end, end + len(SENT)))
    new = list(log.read(*tp, start=end))
    assert [(record.key, record.value) for record in new] == SENT
    kinds = {(record.timestamp_type, record.timestamp == T0) for record in new}
    assert kinds == {(1, False) if log_append_time(log, tp) else (0, True)}
    return rows(new)


def log_append_time(log: pylog.Log, tp: TopicPartition) -> bool:
    return bool(log.admin.describe_topics([tp.topic])[0]["config"]["message_timestamp_type"] == "LogAppendTime")


@both_sides
@every_partition
def test_opening_for_writing_keeps_every_record_and_cuts_nothing_of_a_log(
    golden: Path, tmp_path: Path, tp: TopicPartition, side: str
) -> None:
    data = copy_topic(golden, side, tp.topic, tmp_path / "data")
    want = expected(golden, tp)
    before = log_bytes(data / name(tp))
    with pylog.open(data) as log:
        assert rows(log.read(*tp)) == want.rows
        committed = rows(log.read(*tp, isolation_level="read_committed"))
        assert committed == expected(golden, tp, committed=True).rows
    after = log_bytes(data / name(tp))
    assert {file: after[file] for file in before} == before
    assert all(after[file] == b"" for file in after.keys() - before.keys())


@both_sides
@every_partition
def test_appending_goes_on_at_the_end_and_is_found_again(
    golden: Path, tmp_path: Path, tp: TopicPartition, side: str
) -> None:
    data = copy_topic(golden, side, tp.topic, tmp_path / "data", settings=True)
    want = expected(golden, tp)
    all_rows, end = list(want.rows), want.high
    for _ in range(3):  # each time the directory was closed by pylog before
        with pylog.open(data) as log:
            assert rows(log.read(*tp)) == all_rows
            all_rows += append(log, tp, end)
            end += len(SENT)
            assert rows(log.read(*tp)) == all_rows
        assert (data / ".kafka_cleanshutdown").exists()
        check_indexes_mean_the_log(data / name(tp))
    with pylog.open(data, read_only=True) as log:
        assert rows(log.read(*tp)) == all_rows
        level = log.admin.describe_topics([tp.topic])[0]["partitions"][tp.partition]
        assert (level["start_offset"], level["end_offset"]) == (want.low, end)


@both_sides
@every_partition
def test_appended_batches_carry_the_newest_leader_epoch(
    golden: Path, tmp_path: Path, tp: TopicPartition, side: str
) -> None:
    data = copy_topic(golden, side, tp.topic, tmp_path / "data")
    epochs = (data / name(tp) / "leader-epoch-checkpoint").read_text()
    newest = int(epochs.split("\n")[2:][-2].split()[0]) if epochs.split("\n")[1] != "0" else 0
    with pylog.open(data) as log:
        append(log, tp, expected(golden, tp).high)
    found = [batch for path in sorted((data / name(tp)).glob("*.log")) for batch in batches(path)]
    assert found[-1].leader_epoch == newest
    assert all(before.leader_epoch <= after.leader_epoch for before, after in itertools.pairwise(found))


@both_sides
@pytest.mark.parametrize("partition", [0, 1])
def test_a_record_behind_an_open_transaction_stays_unseen_by_read_committed(
    golden: Path, tmp_path: Path, partition: int, side: str
) -> None:
    tp = TopicPartition("txn", partition)
    data = copy_topic(golden, side, "txn", tmp_path / "data")
    want = expected(golden, tp, committed=True)
    end = expected(golden, tp).high
    with pylog.open(data) as log:
        append(log, tp, end)
    with pylog.open(data) as log:
        seen = rows(log.read(*tp, isolation_level="read_committed"))
        assert seen[: len(want.rows)] == want.rows
        open_transaction = want.high < end
        assert len(seen) - len(want.rows) == (0 if open_transaction else len(SENT))
        with log.consumer(isolation_level="read_committed") as consumer:
            stable = consumer.end_offsets([tp])[tp]
        assert stable == (want.high if open_transaction else end + len(SENT))


def test_the_golden_file_has_an_open_transaction(golden: Path) -> None:
    tp = TopicPartition("txn", 0)
    assert expected(golden, tp, committed=True).high < expected(golden, tp).high


def test_a_killed_brokers_directory_is_recovered_whole(golden: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(golden / "killed", data)
    with pylog.open(data) as log, log.producer() as producer:
        for tp in PARTITIONS:
            assert rows(log.read(*tp)) == expected(golden, tp).rows, name(tp)
            sent = producer.send(tp.topic, b"appended", key=b"k", partition=tp.partition)
            assert sent.get().offset == expected(golden, tp).high, name(tp)
        own = {path.name for path in data.glob("__*") if path.is_dir()}
        for partition in sorted(own):
            topic, _, number = partition.rpartition("-")
            want = [line.offset for line in dumped_records(golden, partition) if not line.control]
            got = [record.offset for record in log.read(topic, int(number))]
            assert got == want[: len(got)], partition
            assert len(got) == len(want) or topic == "__cluster_metadata", partition
    for directory in sorted(path for path in data.iterdir() if path.is_dir()):
        check_indexes_mean_the_log(directory)


@every_partition
def test_checkpoints_that_a_killed_broker_left_empty_count_as_none(
    golden: Path, tmp_path: Path, tp: TopicPartition
) -> None:
    data = copy_topic(golden, "killed", tp.topic, tmp_path / "data")
    for path in data.glob("*-checkpoint"):  # a broker makes them at its start, and fills them when it has something
        path.write_bytes(b"")
    with pylog.open(data) as log:
        # What was deleted of `deleted` is only half gone from its files: how far, stood in a checkpoint.
        assert [row for row in rows(log.read(*tp)) if row.offset >= expected(golden, tp).low] == expected(
            golden, tp
        ).rows
        append(log, tp, expected(golden, tp).high)


def test_a_topic_that_a_broker_deleted_does_not_come_back(golden: Path, tmp_path: Path) -> None:
    data = copy_topic(golden, "clean", "odd", tmp_path / "data", settings=True)
    shutil.rmtree(data / "odd-0")
    with pylog.open(data) as log:
        assert log.admin.list_topics() == []
    assert not (data / "odd-0").exists()
    assert "odd" not in (data / "pylog.topics").read_text()


@both_sides
@every_partition
def test_a_second_recovery_finds_nothing_to_change(golden: Path, tmp_path: Path, tp: TopicPartition, side: str) -> None:
    data = copy_topic(golden, side, tp.topic, tmp_path / "data", settings=True)
    for _ in range(2):
        (data / ".kafka_cleanshutdown").unlink(missing_ok=True)
        pylog.open(data).close()
    first = {path.name: path.read_bytes() for path in sorted((data / name(tp)).iterdir())}
    (data / ".kafka_cleanshutdown").unlink()
    pylog.open(data).close()
    assert {path.name: path.read_bytes() for path in sorted((data / name(tp)).iterdir())} == first
