"""The table of a queue that nobody has open, from its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .journal import Journal, Replayed
from .settings import Settings
from .table import FRONTIER, NEXT_DUE, Table
from .window import Window, key_hash, monotonic_of

if TYPE_CHECKING:
    from .._partition import Partition


def rebuild(
    table: Table, journal: Journal, messages: Partition, window: Window, topic_id: str, wanted: Settings
) -> Settings:
    """Write the table anew; the queue's settings, which are those wanted if it is new.  Caller holds the table."""
    before = _deliveries(table, topic_id)
    told = journal.replay()
    state = messages.native.state()
    start, end = state.log_start_offset, state.log_end_offset
    settings = told.settings
    if settings is None:
        settings = wanted
        journal.keep(settings)
        journal.flush()
    if told.end > end:
        # A power cut has taken messages of which the journal speaks.  Those that get their offsets are others: this
        # must be known before the first of them is put.
        told.cut(end)
        journal.cut(end)
        journal.flush()
    table.clear(start, topic_id, settings.to_json())
    by_key = settings.order == "key"
    _enter_carried(table, journal, told, start)
    reach = min(end, max(told.end, *(offset + 1 for offset in before), start))
    while (frontier := int(table.words[FRONTIER])) < reach and window.cover(frontier):
        part = window.part(frontier, reach - frontier)
        if not len(part.offsets):
            break
        left = ~told.settled(part.offsets)
        table.enter(part.offsets[left], part.dues()[left], part.keys()[left] if by_key else 0)
        table.words[FRONTIER] = part.offsets[-1] + 1
    _resume(table, told, before)
    return settings


def _deliveries(table: Table, topic_id: str) -> dict[int, int]:
    """How often messages that are not settled were delivered, as the last who had the queue open have left it."""
    if table.topic_id != topic_id:
        return {}
    entries = table.entries[(table.entries["offset"] >= 0) & (table.entries["count"] > 0)]
    return dict(zip(entries["offset"].tolist(), entries["count"].tolist(), strict=True))


def _enter_carried(table: Table, journal: Journal, told: Replayed, start: int) -> None:
    """Messages that are in the journal alone."""
    offsets = np.array(sorted(offset for offset in told.bodies if offset < start), np.int64)
    offsets = offsets[~told.settled(offsets)]
    keys = [key_hash(journal.body(told.bodies[offset]).key) for offset in offsets.tolist()]
    table.enter(offsets, 0, np.array(keys, np.uint64))


def _resume(table: Table, told: Replayed, before: dict[int, int]) -> None:
    """Give the entries what is known of them: when they are due, how often they were delivered, why they came back."""
    entries, slots = table.entries, table.live()
    slot_of: dict[int, int] = dict(zip(entries["offset"][slots].tolist(), slots.tolist(), strict=True))
    for offset, (due_ms, deliveries, note) in told.waiting.items():
        if (slot := slot_of.get(offset)) is not None:
            entries["due"][slot] = monotonic_of(due_ms)
            entries["count"][slot] = deliveries
            entries["note"][slot] = note
    for offset, at in told.bodies.items():
        if (slot := slot_of.get(offset)) is not None:
            entries["body"][slot] = at
    for offset, deliveries in before.items():
        if (slot := slot_of.get(offset)) is not None:
            entries["count"][slot] = max(deliveries, int(entries["count"][slot]))
    table.words[NEXT_DUE] = 0
