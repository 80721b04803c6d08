"""Reading without a consumer: what Log.read and Log.scan are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ._columns import Columns
from ._errors import OffsetOutOfRangeError
from ._partition import Partition
from ._types import Isolation, Record, Start

if TYPE_CHECKING:
    from ._topic import Topic

FETCH_BYTES = 1 << 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """Part of a partition: offsets from start to end, which is exclusive."""

    partition: Partition
    start: int
    end: int


def resolve_spans(topic: Topic, partition: int | None, start: Start, end: Start, isolation: Isolation) -> list[Span]:
    """The offsets that start and end stand for now, for one partition or for all of them.

    Raises OffsetOutOfRangeError for a start outside of what there is.
    """
    parts = topic.partitions if partition is None else [topic.partition(partition)]
    single = len(parts) == 1
    spans = []
    for part in parts:
        first = _offset(part, start, single, isolation, missing="earliest")
        state = part.native.state()
        if not state.log_start_offset <= first <= state.log_end_offset:
            raise OffsetOutOfRangeError(
                f"{part.tp.topic}-{part.tp.partition}: offset {first} is out of range "
                f"{state.log_start_offset} to {state.log_end_offset}"
            )
        spans.append(Span(part, first, _offset(part, end, single, isolation, missing="latest")))
    return spans


def _offset(part: Partition, where: Start, single: bool, isolation: Isolation, *, missing: Start) -> int:
    end = part.end_offset(isolation)
    if where == "latest":
        return end
    log_start = part.native.state().log_start_offset
    if where == "earliest":
        return log_start
    if isinstance(where, datetime):
        if where.tzinfo is None:
            raise ValueError(f"{where!r} has no timezone; use datetime.now(timezone.utc) or the like")
        # Rounded up: a record of the millisecond that this moment lies in may be older than the moment.
        timestamp = -((EPOCH - where) // timedelta(milliseconds=1))
        found = part.find_time(max(0, timestamp))
        return end if found is None else min(found[0], end)
    if isinstance(where, Mapping):
        return _offset(part, where.get(part.tp, missing), True, isolation, missing=missing)
    if isinstance(where, int) and not isinstance(where, bool):
        if not single:
            raise ValueError(f"topic {part.tp.topic} has several partitions: an offset needs one of them")
        return where
    raise TypeError(f"start and end are an offset, a datetime, 'earliest', 'latest' or a mapping, not {where!r}")


def read_records(spans: list[Span], isolation: Isolation, key: Any, value: Any) -> Iterator[Record]:
    """The records of each span; key and value are deserializers or None."""
    for partition, start, end in spans:
        reader = partition.reader(start, isolation_level=isolation)
        while reader.position < end:
            records = reader.records(FETCH_BYTES, key_deserializer=key, value_deserializer=value)
            if not records:
                break
            if records[-1].offset < end:
                yield from records
            else:
                yield from (record for record in records if record.offset < end)


def read_columns(spans: list[Span], isolation: Isolation) -> Iterator[Columns]:
    """The same as columns.

    Raises CorruptRecordError where bytes of the columns handed out last went away under them: they read zeros there.
    """
    for partition, start, end in spans:
        reader = partition.reader(start, isolation_level=isolation)
        while reader.position < end:
            decoded = reader.decode(FETCH_BYTES)
            if decoded is None:
                break
            if decoded.offset[-1] >= end:
                decoded = decoded.cut(0, int(decoded.offset.searchsorted(end)))
            if len(decoded.offset):
                yield Columns(partition.tp, decoded)
                reader.check_handed_out(decoded)
