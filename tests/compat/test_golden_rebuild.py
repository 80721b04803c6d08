"""Indexes are hints: deleted, or left with the zero tails of a kill, they come back as the broker had written them."""

from __future__ import annotations

from pathlib import Path

import pytest

import pylog
from pylog import TopicPartition

from .golden import (
    PARTITIONS,
    SETTINGS,
    batches,
    check_indexes_mean_the_log,
    copy_topic,
    expected,
    modelled_indexes,
    name,
    offset_entries,
    producers,
    rows,
    time_entries,
)

every_partition = pytest.mark.parametrize("tp", PARTITIONS, ids=name)
INDEXES = ("index", "timeindex", "txnindex")
# Kafka forgets an idempotent producer that has been silent this long (producer.id.expiration.ms).
SILENT_MS_MAX = 86_400_000


def index_files(partition: Path, suffix: str = "*index") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(partition.glob(f"*.{suffix}"))}


def open_and_close(data: Path, tp: TopicPartition, golden: Path) -> None:
    with pylog.open(data) as log:
        assert rows(log.read(*tp)) == expected(golden, tp).rows


@pytest.mark.parametrize("suffix", INDEXES)
@every_partition
def test_deleted_indexes_come_back_byte_for_byte(golden: Path, tmp_path: Path, tp: TopicPartition, suffix: str) -> None:
    data = copy_topic(golden, "clean", tp.topic, tmp_path / "data", settings=True)
    (data / ".kafka_cleanshutdown").unlink()
    for path in data.rglob("*index"):
        path.unlink()
    open_and_close(data, tp, golden)
    assert index_files(data / name(tp), suffix) == index_files(golden / "clean" / name(tp), suffix)


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@every_partition
def test_one_kind_deleted_under_a_clean_mark_comes_back_byte_for_byte(
    golden: Path, tmp_path: Path, tp: TopicPartition, suffix: str
) -> None:
    data = copy_topic(golden, "clean", tp.topic, tmp_path / "data", settings=True)
    for path in data.rglob(f"*.{suffix}"):
        path.unlink()
    open_and_close(data, tp, golden)
    assert index_files(data / name(tp)) == index_files(golden / "clean" / name(tp))


@every_partition
def test_recovery_trims_a_killed_brokers_indexes_to_what_its_clean_stop_left(
    golden: Path, tmp_path: Path, tp: TopicPartition
) -> None:
    data = copy_topic(golden, "killed", tp.topic, tmp_path / "data", settings=True)
    assert any(content.endswith(bytes(12)) for content in index_files(data / name(tp)).values())
    open_and_close(data, tp, golden)
    assert index_files(data / name(tp)) == index_files(golden / "clean" / name(tp))
    check_indexes_mean_the_log(data / name(tp))


@every_partition
def test_producers_found_again_in_the_log_are_those_of_the_brokers_snapshot(
    golden: Path, tmp_path: Path, tp: TopicPartition
) -> None:
    data = copy_topic(golden, "clean", tp.topic, tmp_path / "data", settings=True)
    (data / ".kafka_cleanshutdown").unlink()
    for pattern in ("*.snapshot", "*index"):  # with indexes to write anew it closes as after a change
        for path in data.rglob(pattern):
            path.unlink()
    open_and_close(data, tp, golden)
    snapshot = f"{expected(golden, tp).high:020d}.snapshot"
    theirs = golden / "clean" / name(tp) / snapshot
    if not theirs.exists():
        assert expected(golden, tp).high == 0
        return
    stopped_ms = theirs.stat().st_mtime_ns // 1_000_000
    want, got = producers(theirs), producers(data / name(tp) / snapshot)
    assert [entry for entry in got if entry in want] == sorted(want)
    assert all(entry.timestamp < stopped_ms - SILENT_MS_MAX for entry in got if entry not in want)
    if len(got) == len(want):
        assert (data / name(tp) / snapshot).read_bytes() == theirs.read_bytes()


@every_partition
def test_opening_and_closing_without_an_append_changes_no_file_of_a_partition(
    golden: Path, tmp_path: Path, tp: TopicPartition
) -> None:
    data = copy_topic(golden, "clean", tp.topic, tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (data / name(tp)).iterdir()}
    open_and_close(data, tp, golden)
    assert {path.name: path.read_bytes() for path in (data / name(tp)).iterdir()} == before


@every_partition
def test_the_written_rules_give_the_brokers_entries(golden: Path, tp: TopicPartition) -> None:
    """Holds the model that other tests rest on against the broker's own files."""
    for log_file in sorted((golden / "clean" / name(tp)).glob("*.log")):
        interval = SETTINGS.get(tp.topic, {}).get("index_interval_bytes", 4096)
        offsets, times = modelled_indexes(list(batches(log_file)), int(log_file.stem), interval)
        assert offset_entries(log_file.with_suffix(".index")) == offsets
        assert time_entries(log_file.with_suffix(".timeindex")) == times
