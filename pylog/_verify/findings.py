"""What a verification finds: findings for people, cuts and fixes for the repair."""

from dataclasses import dataclass, field
from pathlib import Path

from pylog._types import TopicPartition

# What kind of damage the engine's words stand for; anything else is of kind "format".
KINDS = {
    "crc does not match": "crc",
    "batch header is cut short": "length",
    "batch is cut short": "length",
    "batch length is too small": "length",
    "base offset goes back": "order",
    "base offset skips offsets": "order",
    "base offset is beyond the batch behind it": "order",
    "base offset is negative": "order",
    "last offset delta is out of range": "order",
    "offsets run beyond the end of the segment": "overlap",
    "record count does not fit the offsets": "count",
    "record count does not fit the batch": "count",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Damage, or a note: something that is there and does no harm.  Offsets are those that are lost."""

    kind: str
    file: str
    message: str
    is_damage: bool = True
    position: int | None = None
    size: int | None = None
    first_offset: int | None = None
    last_offset: int | None = None

    def line(self) -> str:
        """One line of text."""
        parts = [self.message]
        if self.position is not None:
            parts.append(f"position {self.position}" + (f", {self.size} bytes" if self.size else ""))
        if self.first_offset is not None and self.last_offset is not None:
            many = self.first_offset < self.last_offset
            parts.append(f"offsets {self.first_offset}-{self.last_offset}" if many else f"offset {self.first_offset}")
        return f"{self.file}: {'' if self.is_damage else 'note: '}{', '.join(parts)}"


@dataclass(slots=True)
class Cut:
    """Bytes of a .log that are to be taken out (none: something is missing there), and the offsets that they held.

    next_offset None: it is not known that any offset was there.
    """

    position: int
    size: int
    first_offset: int
    next_offset: int | None
    zeros: bool = False

    @property
    def end(self) -> int:
        """The position behind them."""
        return self.position + self.size


@dataclass(slots=True)
class Segment:
    """A .log file and what was found in it."""

    base_offset: int
    path: Path
    size: int
    next_offset: int = 0
    batches: int = 0
    records: int = 0
    leader_epoch: int = 0
    cuts: list[Cut] = field(default_factory=list)
    hints_are_wrong: bool = False

    def sibling(self, suffix: str) -> Path:
        """A file of the same segment."""
        return self.path.with_suffix(suffix)


@dataclass(slots=True)
class PartitionReport:
    """What is in a partition's directory, and what of it is wrong."""

    tp: TopicPartition
    path: Path
    log_start_offset: int = 0
    log_end_offset: int = 0
    segments: list[Segment] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remove: list[Path] = field(default_factory=list)  # files that hold nothing
    set_aside: list[Path] = field(default_factory=list)  # files that make no sense, which are kept under another name
    epochs_are_wrong: bool = False
    checkpoints: dict[str, int] = field(default_factory=dict)  # checkpoint file to what it should say
    error: str | None = None  # why it could not be looked at to the end

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def damage(self) -> int:
        """How many findings are damage."""
        return sum(finding.is_damage for finding in self.findings)

    @property
    def needs_repair(self) -> bool:
        """Whether there is anything to do, torn tails too."""
        return bool(
            self.remove
            or self.set_aside
            or self.epochs_are_wrong
            or self.checkpoints
            or any(segment.cuts or segment.hints_are_wrong for segment in self.segments)
        )

    def add(self, kind: str, file: str, message: str, *, is_damage: bool = True) -> None:
        """Tell of one of its files, or with file "" of the whole directory."""
        self.findings.append(Finding(kind, f"{self.name}/{file}".rstrip("/"), message, is_damage))


@dataclass(slots=True)
class Report:
    """A data directory's."""

    partitions: list[PartitionReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)

    @property
    def damage(self) -> int:
        """How many findings are damage, everywhere."""
        return sum(finding.is_damage for finding in self.findings) + sum(part.damage for part in self.partitions)

    @property
    def errors(self) -> list[str]:
        """What could not be looked at."""
        return [part.error for part in self.partitions if part.error is not None]
