"""offsets_for_times answers as the broker did, and as the records say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import pylog
from pylog import OffsetAndTimestamp, TopicPartition

from .golden import PARTITIONS, SIDES, DumpedRecord, Row, dumped_records, expected, name

ASKED = ["codec-lz4", "compact-plain", "logappend", "odd", "rolled-ms", "rolled-size"]
Logs = dict[str, pylog.Log]


def answerable(golden: Path, tp: TopicPartition) -> Sequence[Row | DumpedRecord]:
    """What may be the answer: in topics with transactions also a control record, which no consumer sees."""
    return dumped_records(golden, name(tp)) if tp.topic == "txn" else expected(golden, tp).rows


def first_at_or_after(records: Sequence[Row | DumpedRecord], timestamp: int) -> OffsetAndTimestamp | None:
    found = next((record for record in records if record.timestamp >= timestamp), None)
    return None if found is None else OffsetAndTimestamp(found.offset, found.timestamp)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("tp", PARTITIONS, ids=name)
def test_every_time_beside_a_record_finds_the_first_record_at_or_after_it(
    golden: Path, golden_logs: Logs, tp: TopicPartition, side: str
) -> None:
    records = answerable(golden, tp)
    times = {record.timestamp + by for record in records for by in (-1, 0, 1)} | {0, 1 << 62}
    with golden_logs[side].consumer() as consumer:
        for timestamp in sorted(times):
            got = consumer.offsets_for_times({tp: timestamp})[tp]
            assert got == first_at_or_after(records, timestamp), timestamp


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("topic", ASKED)
def test_the_answers_are_those_of_the_broker(golden: Path, golden_logs: Logs, topic: str, side: str) -> None:
    answers: dict[str, dict[str, int]] = json.loads((golden / "expected" / "offsets-for-times.json").read_text())
    assert set(answers) == set(ASKED)
    tp = TopicPartition(topic, 0)
    with golden_logs[side].consumer() as consumer:
        for timestamp, want in answers[topic].items():
            found = consumer.offsets_for_times({tp: int(timestamp)})[tp]
            assert (-1 if found is None else found.offset) == want, timestamp
