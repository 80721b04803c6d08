"""One partition: its segments walked in order, and everything beside them held against what was found there."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from typing import Any

from pylog import _directory, _native
from pylog._compression import decompress
from pylog._dump.output import BrokenFileError
from pylog._errors import CorruptRecordError, UnsupportedCodecError
from pylog._partition import BLOCK_BYTES_MAX
from pylog._types import TopicPartition

from . import engine, hints
from .engine import Aborted, Walk
from .findings import KINDS, Cut, Finding, PartitionReport, Segment
from .hints import SegmentHints
from .place import CLEANER, IN_TRANSIT, KEPT, Place, regular_size

OFFSET_MAX = (1 << 63) - 1
RELATIVE_OFFSET_MAX = SEGMENT_BYTES_MAX = (1 << 31) - 1
SEGMENT_FILE = re.compile(r"(\d{20})\.(log|index|timeindex|txnindex|snapshot)")
EPOCHS, METADATA = "leader-epoch-checkpoint", "partition.metadata"
OTHER_FILE = re.compile(r"quorum-state|\d{20}-\d{10}\.checkpoint|" + f"{EPOCHS}|{METADATA}")

Passed = Callable[[int], None]  # is told of bytes that were read; may raise to stop


class ChangedError(Exception):
    """The partition was changed while it was read: look again."""


class PartitionCheck:
    """Verifies one partition; `report` fills as it goes."""

    def __init__(self, place: Place, tp: TopicPartition, passed: Passed) -> None:
        self._place = place
        self._passed = passed
        self._dense = place.is_dense(tp.topic)
        self._recovery_point = place.offset(_directory.RECOVERY_POINTS, tp) or 0
        self._snapshots: list[tuple[int, Path]] = []
        self._without_codec: dict[str, int] = {}
        self._is_whole = self._dense  # nothing is missing so far, by compaction or damage
        self._aborted: list[Aborted] = []
        self.report = PartitionReport(tp, place.directory.partition_path(tp))

    def run(self) -> PartitionReport:
        """Look at everything.

        Raises:
            ChangedError: somebody who has the directory open has taken files away, or cut them.
            OSError: a file cannot be read.
        """
        segments = self._list_files()
        self._check_start(segments)
        self._walk(segments)
        self._check_end(segments)
        self._check_small_files()
        for name, count in sorted(self._without_codec.items()):
            self._note("codec", "", f"{count} batches were not looked into: {name}")
        return self.report

    # -- files

    def _list_files(self) -> list[Segment]:
        segments: dict[int, Segment] = {}
        of_segments: list[tuple[int, str]] = []
        for entry in sorted(os.scandir(self.report.path), key=lambda entry: entry.name):
            match = SEGMENT_FILE.fullmatch(entry.name)
            if match and int(match[1]) <= OFFSET_MAX:
                base, kind, path = int(match[1]), match[2], Path(entry.path)
                if kind == "snapshot":
                    self._snapshots.append((base, path))
                elif kind != "log":
                    of_segments.append((base, entry.name))
                elif (size := regular_size(path)) is not None:
                    segments[base] = Segment(base, path, size, next_offset=base)
                elif not self._place.is_live:
                    self._damage("format", entry.name, "not a plain file")
            else:
                self._note_file(entry.name)
        for base, name in of_segments:
            if base not in segments and not self._place.is_live:
                self._note("leftover", name, "it has no .log; the next open removes it")
        return [segments[base] for base in sorted(segments)]

    def _note_file(self, name: str) -> None:
        if name.endswith(IN_TRANSIT):
            if self._place.is_live:
                return  # whoever has it open may be about to put it in place
            self._note("leftover", name, "left by work that did not finish, or by a deletion")
        elif KEPT.fullmatch(name):
            self._note("kept", name, "what an earlier repair has taken out")
        elif not OTHER_FILE.fullmatch(name):
            self._note("unknown", name, "a file that is neither Kafka's nor pylog's")

    # -- the logs

    def _check_start(self, segments: list[Segment]) -> None:
        tp = self.report.tp
        start = self._place.offset(_directory.LOG_STARTS, tp)
        first = segments[0].base_offset if segments else 0
        self.report.log_start_offset = max(first, start or 0)
        if not segments or self._place.is_live:
            return
        if start is None and not self._dense:
            return  # where a broker keeps the log, retention gives segments back and notes it nowhere
        if (start or 0) >= first:
            return
        is_damage = self._dense or self._place.is_clean
        problem = f"the log should start with {start or 0}, its first segment starts with {first}"
        self.report.findings.append(
            Finding("missing", self.report.name, problem, is_damage, None, None, start or 0, first - 1)
        )
        if is_damage:
            self.report.checkpoints[_directory.LOG_STARTS] = first

    def _walk(self, segments: list[Segment]) -> None:
        first = segments[0].base_offset if segments else 0
        snapshot = b""
        for offset, path in self._snapshots:
            if offset == first and not hints.snapshot_problem(path):
                snapshot = path.read_bytes()
        self._is_whole = first == 0 or bool(snapshot)
        walk = Walk(str(self.report.path), dense=self._dense, snapshot=snapshot)
        end = first
        for i, segment in enumerate(segments):
            if segment.base_offset < end and segment.size == 0:
                self._overlapping(segment, end)
                continue
            self._gap_before(segment, end)
            behind = [later.base_offset for later in segments[i + 1 :] if later.size]
            self.report.segments.append(segment)
            self._walk_segment(walk, segment, behind[0] if behind else None, i == len(segments) - 1)
            end = segment.next_offset
        self.report.log_end_offset = end if segments else self.report.log_start_offset

    def _overlapping(self, segment: Segment, end: int) -> None:
        """An empty segment inside the one before it: a roll that was interrupted may leave it."""
        harmless = self._place.is_live or (not self._place.is_clean and end >= self._recovery_point)
        self.report.findings.append(
            Finding(
                "overlap", f"{self.report.name}/{segment.path.name}",
                f"an empty segment within the one before it, which ends at {end}", not harmless,
            )
        )  # fmt: skip
        self.report.remove.append(segment.path)

    def _gap_before(self, segment: Segment, end: int) -> None:
        if segment.base_offset == end or not self.report.segments:
            return
        self._is_whole = False
        before = self.report.segments[-1]
        if not self._dense or segment.base_offset < end or (before.cuts and before.cuts[-1].end == before.size):
            return
        cut = Cut(before.size, 0, end, segment.base_offset)
        before.cuts.append(cut)
        self._tell(before, cut, "gap", f"records are missing between this segment and {segment.path.name}")

    def _walk_segment(self, walk: Walk, segment: Segment, next_base: int | None, is_active: bool) -> None:
        if segment.size > SEGMENT_BYTES_MAX:
            raise CorruptRecordError(
                f"{segment.size} bytes, a segment has at most {SEGMENT_BYTES_MAX}", self._shown(segment)
            )
        beside = SegmentHints(segment)
        limit = OFFSET_MAX if next_base is None else next_base
        walked = 0
        try:
            walk.begin(segment.base_offset, segment.size, limit, beside.places)
            while (step := walk.next()).what != engine.END:
                self._take(segment, step, next_base)
                self._passed(step.walked_bytes - walked)
                walked = step.walked_bytes
        except (OSError, CorruptRecordError) as error:
            if self._place.is_live and (isinstance(error, CorruptRecordError) or error.errno == ENOENT):
                raise ChangedError from error
            raise
        self._passed(segment.size - walked)
        segment.next_offset = step.log_next_offset
        segment.batches += step.batches
        segment.records += step.records
        segment.leader_epoch = step.leader_epoch
        self._is_whole &= segment.records == segment.next_offset - segment.base_offset
        self._check_hints(segment, beside, walk.new_aborted(), is_active)

    def _take(self, segment: Segment, step: Any, next_base: int | None) -> None:
        if step.what == engine.COMPRESSED:
            self._look_into(segment, step)
        elif step.what == engine.UNDECODABLE:
            self._undecodable(segment, step, engine.text(step.problem))
        elif step.what == engine.DAMAGE:
            self._damaged(segment, step, next_base)

    def _look_into(self, segment: Segment, step: Any) -> None:
        batch = memoryview(_native.ffi.buffer(step.batch, step.bytes))
        header = _native.parse_batch(batch)
        assert header is not None  # the engine has checked it
        try:
            block = decompress(header.codec, batch[_native.BATCH_HEADER_BYTES :], bytes_max=BLOCK_BYTES_MAX)
            _native.decode_block(header, block)
        except UnsupportedCodecError as error:
            self._without_codec[str(error)] = self._without_codec.get(str(error), 0) + 1
        except (ValueError, CorruptRecordError) as error:
            segment.batches -= 1
            segment.records -= header.record_count
            self._undecodable(segment, step, str(error))

    def _undecodable(self, segment: Segment, step: Any, problem: str) -> None:
        cut = Cut(step.position, step.bytes, step.first_offset, step.next_offset)
        segment.cuts.append(cut)
        self._tell(segment, cut, "records", f"the records of a batch with a right CRC do not decode: {problem}")

    def _damaged(self, segment: Segment, step: Any, next_base: int | None) -> None:
        readable_behind = step.next_offset >= 0
        next_offset = step.next_offset if readable_behind else next_base
        cut = Cut(step.position, step.bytes, step.first_offset, next_offset, bool(step.zeros))
        segment.cuts.append(cut)
        problem = engine.text(step.problem)
        kind = KINDS.get(problem, "format")
        if kind == "crc":
            problem = f"crc 0x{step.crc:08x}, computed 0x{step.computed_crc:08x}"
        if step.zeros:
            problem = "zero bytes"
        if next_offset is None:
            self._tail(segment, cut, kind, problem)
        else:
            self._tell(segment, cut, kind, problem)

    def _tail(self, segment: Segment, cut: Cut, kind: str, problem: str) -> None:
        """Nothing can be read behind it: what a crash leaves, or what is being written."""
        if self._place.is_live:
            kind, problem = "tail", "the tail of a log that is open: it is being written, or a dead process has left it"
        elif cut.zeros:
            kind, problem = "zeros", "zero bytes behind the end of the log"
        elif not self._place.is_clean and cut.first_offset >= self._recovery_point:
            kind, problem = "torn", f"a torn tail, which recovery cuts off ({problem})"
        else:
            self._tell(segment, cut, kind, problem)
            return
        self._tell(segment, cut, kind, problem, is_damage=False)

    def _check_end(self, segments: list[Segment]) -> None:
        """Whether the log reaches as far as it is known to have been on the disk."""
        if self._place.is_live:
            return
        tp, report = self.report.tp, self.report
        end, wanted = report.log_end_offset, self._recovery_point
        if wanted > end and not report.segments:
            report.segments.append(Segment(end, report.path / f"{end:020d}.log", 0, next_offset=end))
        if wanted > end and wanted - report.segments[-1].base_offset <= RELATIVE_OFFSET_MAX:
            self._end_is_lost(report.segments[-1], wanted)
            end = wanted
        latest = end if self._place.is_clean else OFFSET_MAX  # unclean: they may be ahead of what reached the disk
        for name in (_directory.RECOVERY_POINTS, _directory.LOG_STARTS, _directory.HIGH_WATERMARKS, CLEANER):
            offset = self._place.offset(name, tp)
            if offset is None:
                continue
            if offset > (end if name == _directory.RECOVERY_POINTS else latest):
                self._checkpoint(name, f"{offset} lies beyond the log end, {end}")
                is_start = name == _directory.LOG_STARTS
                report.checkpoints[name] = segments[0].base_offset if is_start and segments else end
                if is_start:
                    report.log_start_offset = report.checkpoints[name]

    def _end_is_lost(self, last: Segment, wanted: int) -> None:
        """The last segment ends too early: its tail, if it has one, is damage, whatever it looks like."""
        if last.cuts and last.cuts[-1].next_offset is None:
            cut = last.cuts[-1]
            cut.next_offset = wanted
        else:
            cut = Cut(last.size, 0, last.next_offset, wanted)
            last.cuts.append(cut)
        self.report.findings[:] = [
            found
            for found in self.report.findings
            if (found.file, found.position, found.size) != (self._shown(last), cut.position, cut.size or None)
        ]
        self._tell(last, cut, "end", f"the log ends here; it was on the disk up to {wanted}")

    # -- what lies beside them

    def _check_hints(self, segment: Segment, beside: SegmentHints, aborted: list[Aborted], is_active: bool) -> None:
        live = self._place.is_live
        for suffix, problem in beside.problems(may_run_ahead=live):
            self._hint(segment, suffix, problem)
        for suffix in beside.missing:
            if not live:
                self._note("missing", segment.sibling(suffix).name, "no such file; the next open makes it anew")
                segment.hints_are_wrong = True
        if self._is_whole and not segment.cuts and not (live and is_active):
            wrong = hints.aborted_problem(segment.sibling(".txnindex"), aborted)
            if wrong is not None:
                self._hint(segment, ".txnindex", wrong)

    def _hint(self, segment: Segment, suffix: str, problem: str) -> None:
        """A file that can be made anew; where a crash may have left it so, it is no damage."""
        excused = not self._place.is_clean and segment.next_offset > self._recovery_point
        self.report.add(suffix[1:], segment.sibling(suffix).name, problem, is_damage=not excused and not segment.cuts)
        segment.hints_are_wrong = True

    def _check_small_files(self) -> None:
        for offset, path in self._snapshots:
            if problem := hints.snapshot_problem(path):
                self._damage("snapshot", path.name, problem)
                self.report.remove.append(path)
            elif offset > self.report.log_end_offset and not self._place.is_live:
                self._note("snapshot", path.name, f"lies beyond the log end, {self.report.log_end_offset}")
        if problem := hints.small_file_problem(self.report.path / METADATA):
            self._damage("settings", METADATA, problem)
            if self._place.topic_id(self.report.tp.topic) is not None:
                self.report.set_aside.append(self.report.path / METADATA)
        try:
            epochs = hints.read_epochs(self.report.path / EPOCHS)
        except (BrokenFileError, UnicodeDecodeError) as error:
            self._epochs(str(error).removeprefix(f"{self.report.path / EPOCHS}: "))
            return
        numbers, starts = [epoch for epoch, _ in epochs], [start for _, start in epochs]
        end = max(self.report.log_end_offset, self._recovery_point)
        if any(a >= b for column in (numbers, starts) for a, b in itertools.pairwise(column)):
            self._epochs("epochs or their start offsets do not rise")
        elif starts and starts[-1] > end and self._place.is_clean:
            self._epochs(f"epoch {numbers[-1]} starts with {starts[-1]}, beyond the log end, {end}")

    def _epochs(self, problem: str) -> None:
        self._checkpoint(EPOCHS, problem)
        self.report.epochs_are_wrong = True

    # -- telling

    def _shown(self, segment: Segment) -> str:
        return f"{self.report.name}/{segment.path.name}"

    def _tell(self, segment: Segment, cut: Cut, kind: str, problem: str, *, is_damage: bool = True) -> None:
        lost = cut.next_offset is not None and cut.next_offset > cut.first_offset
        self.report.findings.append(
            Finding(
                kind, self._shown(segment), problem, is_damage, cut.position, cut.size or None,
                cut.first_offset if lost else None, cut.next_offset - 1 if lost and cut.next_offset else None,
            )
        )  # fmt: skip

    def _checkpoint(self, name: str, problem: str) -> None:
        self._damage("checkpoint", name, problem)

    def _damage(self, kind: str, name: str, problem: str) -> None:
        self.report.add(kind, name, problem)

    def _note(self, kind: str, name: str, problem: str) -> None:
        self.report.add(kind, name, problem, is_damage=False)
