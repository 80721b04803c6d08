"""What is known of a data directory before its logs are walked: who has it open, and what its small files say."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from pylog import _directory
from pylog._directory import Directory
from pylog._dump import checkpoint
from pylog._dump.output import BrokenFileError
from pylog._errors import CorruptRecordError
from pylog._membership import LOCK_NAME, is_held
from pylog._types import TopicPartition

from .findings import Finding, Report
from .hints import small_file_problem

CLEANER = "cleaner-offset-checkpoint"
CHECKPOINTS = (_directory.RECOVERY_POINTS, _directory.LOG_STARTS, _directory.HIGH_WATERMARKS, CLEANER)
KNOWN_FILES = {
    *CHECKPOINTS, LOCK_NAME, _directory.CLEAN_MARK, _directory.TOPICS, _directory.BROKER_MARK, "pylog.shm",
    "bootstrap.checkpoint",
}  # fmt: skip
IN_TRANSIT = (".tmp", ".deleted", ".cleaned", ".swap")
KEPT = re.compile(r".*\.cut-\d+(\.\d+)?")


class Place:
    """A data directory as it was when it was looked at.

    is_live: somebody has it open, and may append.  is_clean: it was closed cleanly, so that nothing in it may be torn.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self.path = path
        self.directory = Directory(path)
        self.alone = alone
        # Before the rest: whoever comes later, or leaves, cannot make what is then read look worse than it is.
        self.is_live = self.in_use()
        self.is_clean = not self.is_live and self.directory.read_clean_mark() is not None
        self.made_by_broker = self.directory.made_by_broker()
        self.report = Report()
        self.checkpoints = {name: self._read_checkpoint(name) for name in CHECKPOINTS}
        self.topics, present = self._topics_and_partitions()
        self.partitions = [TopicPartition(topic, number) for topic, numbers in present.items() for number in numbers]
        for name in (_directory.CLEAN_MARK, _directory.BROKER_MARK):
            if problem := small_file_problem(path / name):
                self._add("settings", name, problem)

    def in_use(self) -> bool:
        """Whether somebody else has the directory open, pylog or a broker."""
        return not self.alone and is_held(self.path)

    def offset(self, name: str, tp: TopicPartition) -> int | None:
        """What a checkpoint says of a partition."""
        return self.checkpoints[name].get(tp)

    def is_dense(self, topic: str) -> bool:
        """Whether the topic's offsets can have no gaps."""
        return bool(self.topics.get(topic, {}).get("dense", False)) and not self.made_by_broker

    def topic_id(self, topic: str) -> str | None:
        """The topic's id where pylog has given it."""
        found = self.topics.get(topic, {}).get("id")
        return found if isinstance(found, str) else None

    def look_around(self) -> None:
        """Note what else lies in the directory."""
        names = {f"{tp.topic}-{tp.partition}" for tp in self.partitions}
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            if entry.name in names or entry.name in KNOWN_FILES or entry.name.startswith("pylog.group."):
                continue
            if _directory.DELETED_DIRECTORY.fullmatch(entry.name):
                self._note("leftover", entry.name, "a topic that is being deleted; the next open finishes it")
            elif entry.name.endswith(IN_TRANSIT):
                if not self.is_live:
                    self._note("leftover", entry.name, "left by a write that did not finish")
            elif KEPT.fullmatch(entry.name):
                self._note("kept", entry.name, "kept by an earlier repair")
            else:
                kind = "directory" if entry.is_dir(follow_symlinks=False) else "file"
                self._note("unknown", entry.name, f"a {kind} that is neither Kafka's nor pylog's")
        for topic, settings in self.topics.items():
            count = int(settings.get("partitions", 0))
            ready = int(settings.get("ready", count))
            if ready < count and not self.is_live:
                self._note("leftover", _directory.TOPICS, f"{topic} was being made; the next open finishes it")
            for number in range(ready):
                if not settings.get("deleted") and TopicPartition(topic, number) not in self.partitions:
                    self._add("missing", f"{topic}-{number}", f"{_directory.TOPICS} has it, the directory is missing")

    def _read_checkpoint(self, name: str) -> dict[TopicPartition, int]:
        path = self.path / name
        try:
            text = path.read_text("utf-8")
            if not text:  # a broker makes the file before it has anything to put into it
                return {}
            rows = checkpoint.rows(name, text, checkpoint.OFFSET_LINE)
        except FileNotFoundError:
            return {}
        except (BrokenFileError, UnicodeDecodeError) as error:
            self._add("checkpoint", name, str(error).removeprefix(f"{name}: "))
            self.report.set_aside.append(path)
            return {}
        return {TopicPartition(topic, int(number)): int(offset) for topic, number, offset in rows}

    def _topics_and_partitions(self) -> tuple[dict[str, dict[str, Any]], dict[str, list[int]]]:
        try:
            return self.directory.topics_and_partitions()
        except CorruptRecordError as error:
            self._add("settings", _directory.TOPICS, str(error).removeprefix(f"{_directory.TOPICS}: "))
            return {}, self.directory.partitions()

    def _add(self, kind: str, file: str, message: str) -> None:
        self.report.findings.append(Finding(kind, file, message))

    def _note(self, kind: str, file: str, message: str) -> None:
        self.report.findings.append(Finding(kind, file, message, is_damage=False))


def regular_size(path: Path) -> int | None:
    """The size of a file; None where there is no plain file of that name (links are not followed)."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
