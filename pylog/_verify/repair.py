"""Making the best of it: what cannot be read goes out of the logs, all else stays readable at its offset.

The directory is held as by an opener that is alone, from the first look to the last rename. The clean-shutdown mark
stays: without it, whoever came after an interruption would take damage for a torn tail. For each segment:

1. The bytes that go are written beside it, `<segment>.log.cut-<position>`, flushed and renamed into place.
2. Its indexes are removed. They are hints, and would point wrong.
3. What stays is written to `<segment>.log.cleaned`, flushed, and renamed over the .log. Where offsets were lost, an
   empty batch holds their place, as compaction leaves one: so offsets still have no gap, and none is given twice.

Each step ends in a rename, and recovery removes what has no name yet; begun again after an interruption, the repair
ends in the same files. At the end the directory is opened and closed once, which makes all hints anew.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pylog import _log, _native
from pylog._directory import Directory, replace_file, sync_directory
from pylog._errors import LogLockedError
from pylog._membership import Membership
from pylog._types import TopicPartition

from .check import check
from .findings import Cut, PartitionReport, Report, Segment
from .partition import EPOCHS, METADATA, RELATIVE_OFFSET_MAX
from .place import Place, regular_size

COPY_BYTES = 1 << 20
# base offset, length, leader epoch, magic, CRC; and what the CRC covers: attributes, last offset delta, base and
# largest timestamp, producer id and epoch, base sequence, record count
HEAD = struct.Struct(">qiibI")
COVERED = struct.Struct(">hiqqqhii")
MAGIC = 2


def repair(path: Path, wanted: Sequence[str], jobs: int) -> tuple[Report, Report, list[str]]:
    """Repair a data directory; returns what was wrong, what still is, and what was done in lines.

    Raises:
        LogLockedError: somebody has the directory open.
        OSError, LookupError: as check.
    """
    if not path.is_dir():
        raise NotADirectoryError(20, "no such directory", str(path))
    membership = Membership(path)
    try:
        with membership.joining as alone:
            if not alone:
                raise LogLockedError(f"{path} is open in another process; --repair needs it for itself")
            found = check(path, wanted, jobs, alone=True)
            done = list(_Repair(path, found).run())
    finally:
        membership.abandon()
    if not wanted:
        _make_hints(path, found)
    return found, check(path, wanted, jobs), done


def _make_hints(path: Path, found: Report) -> None:
    """Let the engine do what it does for a directory of its own: indexes, snapshots, checkpoints, the clean mark."""
    damaged = {part.tp for part in found.partitions if part.needs_repair and not part.error}
    with _log.open(path, flush_ms=None) as log:
        for topic in log.topics.values():
            for partition in topic.partitions:
                if partition.tp in damaged:
                    partition.native.state()


class _Repair:
    """One pass over what was found; yields lines about what it does."""

    def __init__(self, path: Path, found: Report) -> None:
        self._place = Place(path, alone=True)
        self._directory = Directory(path)
        self._found = found

    def run(self) -> Iterator[str]:
        for file in self._found.set_aside:
            yield self._set_aside(file)
        for part in self._found.partitions:
            if part.needs_repair and part.error is None:
                yield from self._partition(part)
        yield from self._checkpoints()

    def _partition(self, part: PartitionReport) -> Iterator[str]:
        for path in sorted(part.path.iterdir()):
            if path.name.endswith((".cleaned", ".deleted")):
                path.unlink()  # as recovery does; they may be what an interrupted repair has left
        for segment in part.segments:
            if segment.cuts or segment.hints_are_wrong:
                yield from _repair_segment(segment)
        for path in part.remove:
            path.unlink(missing_ok=True)
            yield f"{part.name}/{path.name}: removed"
        for path in part.set_aside:
            yield self._set_aside(path)
            topic_id = self._place.topic_id(part.tp.topic)
            if path.name == METADATA and topic_id is not None:
                replace_file(path, f"version: 0\ntopic_id: {topic_id}")
        if part.epochs_are_wrong:
            yield self._set_aside(part.path / EPOCHS)
            epoch = max([segment.leader_epoch for segment in part.segments], default=0)
            replace_file(part.path / EPOCHS, f"0\n1\n{epoch} {part.log_start_offset}\n")
        sync_directory(part.path)

    def _checkpoints(self) -> Iterator[str]:
        wrong: dict[str, dict[TopicPartition, int]] = {}
        for part in self._found.partitions:
            for name, offset in part.checkpoints.items():
                wrong.setdefault(name, {})[part.tp] = offset
        for name, offsets in wrong.items():
            known = dict(self._place.checkpoints[name])
            self._directory.write_checkpoint(name, known | offsets)
            for tp, offset in offsets.items():
                yield f"{name}: {tp.topic}-{tp.partition} set to {offset}"

    def _set_aside(self, path: Path) -> str:
        """Give a file that makes no sense another name, under which nobody reads it."""
        kept = _free_name(path, 0)
        path.rename(kept)
        sync_directory(path.parent)
        return f"{path.name}: set aside as {kept.relative_to(self._place.path)}"


def _repair_segment(segment: Segment) -> Iterator[str]:
    cuts = _merged(segment)
    shown = f"{segment.path.parent.name}/{segment.path.name}"
    for cut in cuts:
        if cut.size:
            kept = _keep(segment, cut)
            yield f"{shown}: took out {cut.size} bytes at {cut.position}, kept in {kept.parent.name}/{kept.name}"
    for suffix in (".index", ".timeindex", ".txnindex"):
        segment.sibling(suffix).unlink(missing_ok=True)
    sync_directory(segment.path.parent)
    if len(cuts) == 1 and cuts[0].end == segment.size and not _lost(cuts[0]):
        with segment.path.open("r+b") as file:
            file.truncate(cuts[0].position)
            os.fsync(file.fileno())
    elif cuts:
        _rewrite(segment, cuts)
        for cut in filter(_lost, cuts):
            yield f"{shown}: an empty batch holds the place of offsets {cut.first_offset}-{_next(cut) - 1}"


def _next(cut: Cut) -> int:
    return cut.first_offset if cut.next_offset is None else cut.next_offset


def _lost(cut: Cut) -> bool:
    return _next(cut) > cut.first_offset


def _merged(segment: Segment) -> list[Cut]:
    """The segment's cuts in order, those that touch as one: a batch may have been found wrong twice."""
    merged: list[Cut] = []
    for cut in sorted(segment.cuts, key=lambda cut: (cut.position, cut.end)):
        last = merged[-1] if merged else None
        if last is None or cut.position > last.end:
            merged.append(Cut(cut.position, cut.size, cut.first_offset, cut.next_offset, cut.zeros))
            continue
        last.size = max(last.end, cut.end) - last.position
        last.first_offset = min(last.first_offset, cut.first_offset)
        last.next_offset = cut.next_offset if cut.next_offset is None else max(_next(last), cut.next_offset)
        last.zeros &= cut.zeros
    return merged


def _keep(segment: Segment, cut: Cut) -> Path:
    """Put the cut's bytes into a file beside the segment; the same one, when an interrupted repair has done so."""
    number = 0
    while regular_size(kept := _kept_name(segment.path, cut.position, number)) is not None:
        if _same(segment, cut, kept):
            return kept
        number += 1
    temporary = kept.with_name(kept.name + ".cleaned")
    with segment.path.open("rb") as log, _new_file(temporary) as file:
        if cut.zeros:
            file.truncate(cut.size)  # a hole: zeros cost no room
        else:
            _copy(log, file, cut.position, cut.size)
    temporary.rename(kept)
    sync_directory(kept.parent)
    return kept


def _kept_name(path: Path, position: int, number: int) -> Path:
    return path.with_name(f"{path.name}.cut-{position}" + (f".{number}" if number else ""))


def _free_name(path: Path, position: int) -> Path:
    number = 0
    while os.path.lexists(kept := _kept_name(path, position, number)):
        number += 1
    return kept


def _same(segment: Segment, cut: Cut, kept: Path) -> bool:
    if kept.stat().st_size != cut.size:
        return False
    with segment.path.open("rb") as log, kept.open("rb") as file:
        log.seek(cut.position)
        for at in range(0, cut.size, COPY_BYTES):
            amount = min(COPY_BYTES, cut.size - at)
            if log.read(amount) != file.read(amount):
                return False
    return True


def _rewrite(segment: Segment, cuts: list[Cut]) -> None:
    temporary = segment.path.with_name(segment.path.name + ".cleaned")
    with contextlib.ExitStack() as files:
        new = files.enter_context(_new_file(temporary))
        # A segment that is gone altogether has no file: there is only the empty batch to be written.
        log = files.enter_context(segment.path.open("rb")) if segment.path.exists() else None
        at = 0
        for cut in cuts:
            if log is not None:
                _copy(log, new, at, cut.position - at)
            if _lost(cut) and _next(cut) - segment.base_offset <= RELATIVE_OFFSET_MAX:
                new.write(empty_batch(cut.first_offset, _next(cut), segment.leader_epoch))
            at = cut.end
        if log is not None:
            _copy(log, new, at, segment.size - at)
    temporary.rename(segment.path)
    sync_directory(segment.path.parent)


def empty_batch(first_offset: int, next_offset: int, leader_epoch: int) -> bytes:
    """A batch without records, as compaction leaves it where all records of a batch went."""
    covered = COVERED.pack(0, next_offset - first_offset - 1, -1, -1, -1, -1, -1, 0)
    size = HEAD.size + len(covered) - 12
    return HEAD.pack(first_offset, size, leader_epoch, MAGIC, _native.crc32c(covered)) + covered


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, which is on the disk when the block is left."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(path, "wb", opener=lambda name, _: os.open(name, flags, 0o644)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _copy(source: BinaryIO, target: BinaryIO, position: int, size: int) -> None:
    source.seek(position)
    while size > 0:
        data = source.read(min(COPY_BYTES, size))
        if not data:
            raise OSError(5, "the file ends before it should", source.name)
        target.write(data)
        size -= len(data)
