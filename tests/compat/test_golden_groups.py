"""Offsets that groups have committed to a real broker, of each kind of group, are read as the broker gave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pylog
from pylog import TopicPartition

from .golden import SIDES


def committed(golden: Path) -> dict[str, dict[TopicPartition, int]]:
    """By group: what the broker answered; a group that has none, or was deleted, has an empty entry."""
    answers = json.loads((golden / "expected" / "group-offsets.json").read_text())
    found: dict[str, dict[TopicPartition, int]] = {}
    for group, offsets in answers.items():
        found[group] = {}
        for name, (offset, _) in (offsets if isinstance(offsets, dict) else {}).items():
            topic, _, number = name.rpartition("-")
            found[group][TopicPartition(topic, int(number))] = offset
    return found


@pytest.mark.parametrize("side", SIDES)
def test_each_group_has_the_offsets_that_the_broker_answered(
    golden: Path, golden_logs: dict[str, pylog.Log], side: str
) -> None:
    log = golden_logs[side]
    groups = committed(golden)
    assert sum(map(len, groups.values())) > 10
    for group, offsets in groups.items():
        with log.consumer(group_id=group) as consumer:
            for tp, offset in offsets.items():
                assert consumer.committed(tp) == offset, (group, tp)
    with log.consumer(group_id="gone") as consumer:
        assert consumer.committed(TopicPartition("codec-none", 0)) is None
    assert set(log.admin.list_groups()) == {group for group, offsets in groups.items() if offsets}
