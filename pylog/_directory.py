"""A data directory: its lock, its clean-shutdown mark, its checkpoints, its topics' settings.

Kafka's own files: `.lock`, `.kafka_cleanshutdown`, `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`,
`replication-offset-checkpoint`, and `<topic>-<partition>/` with `partition.metadata` and `leader-epoch-checkpoint`.
Ours: `pylog.topics`, a plain file that a broker leaves alone:
    {"version": 1, "topics": {"orders": {"partitions": 2, "config": {"segment_bytes": 1048576}, "dense": true}}}
A topic without an entry (a broker made it) has default settings.

Small files are replaced whole: written beside, fsynced, renamed, the directory fsynced.  Nothing below the data
directory is reached through a symbolic link, and nothing but a regular file is read or written.
"""

import base64
import contextlib
import errno
import json
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ._errors import CorruptRecordError, InvalidTopicError, PylogError, StorageError
from ._types import TopicPartition

CLEAN_MARK = ".kafka_cleanshutdown"
TOPICS = "pylog.topics"
RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
BROKER_MARK = "meta.properties"

TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
PARTITION_DIRECTORY = re.compile(r"([a-zA-Z0-9._-]{1,249})-(0|[1-9][0-9]{0,9})")
DELETED_DIRECTORY = re.compile(r".+\.[0-9a-f]{32}-delete")


def check_topic_name(topic: object) -> str:
    """Return the name; raise InvalidTopicError unless it is legal in Kafka and so cannot leave the directory."""
    if not isinstance(topic, str):
        raise TypeError(f"a topic's name is a str, not {type(topic).__name__}")
    if not TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
        raise InvalidTopicError(
            f"{topic[:300]!r} is no topic name: 1 to 249 of the characters a-z A-Z 0-9 . _ - and not '.' or '..'"
        )
    return topic


@contextlib.contextmanager
def storage_errors(path: Path | None = None) -> Iterator[None]:
    """What the system refuses is a StorageError, whoever asked it; path: the file that is named, None: the call's."""
    try:
        yield
    except PylogError:
        raise
    except OSError as error:
        raise _refused(error, path) from error


def _refused(error: OSError, path: Path | None) -> StorageError:
    file = error.filename if path is None else str(path)
    return StorageError(error.errno or 0, error.strerror or str(error), file)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durably; nothing if it is there."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        sync_directory(place.parent)


def read_file(path: Path) -> bytes:
    """What a file holds.  Raises FileNotFoundError; StorageError for what cannot be read or is no regular file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would wait for somebody to write
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(errno.EINVAL, "not a regular file", str(path))
            return file.read()
    except (FileNotFoundError, PylogError):
        raise
    except OSError as error:
        raise _refused(error, path) from error


def replace_file(path: Path, text: str) -> None:
    """Put a file in place whole and durably."""
    with storage_errors(path):
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _replace(parent, path.name, text)
        finally:
            os.close(parent)


def _replace(parent: int, name: str, text: str) -> None:
    # Of this thread alone: another process may replace the same file at the same moment.
    temporary = f"{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)  # of a process that had the same number
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)  # on a full disk, half of it would make that worse
        raise
    os.fsync(parent)


def read_epochs(path: Path) -> list[tuple[int, int]]:
    """(epoch, start offset) pairs of a leader-epoch-checkpoint; empty where there is none or it makes no sense."""
    try:
        _, _, *lines = read_file(path).decode().split("\n")
        return [(int(epoch), int(start)) for epoch, start in (line.split() for line in lines if line)]
    except (OSError, ValueError):
        return []


class Directory:
    """The files of a data directory outside of the partitions' logs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- clean mark

    def read_clean_mark(self) -> int | None:
        """The broker epoch in the clean-shutdown mark; None: there is no mark."""
        try:
            mark = json.loads(read_file(self.path / CLEAN_MARK) or b"{}")
        except FileNotFoundError:
            return None
        except ValueError:
            return -1
        epoch = mark.get("brokerEpoch", -1) if isinstance(mark, dict) else -1
        return epoch if isinstance(epoch, int) else -1

    def remove_clean_mark(self) -> None:
        """Durably: the directory counts as unclean from here on."""
        (self.path / CLEAN_MARK).unlink(missing_ok=True)
        sync_directory(self.path)

    def write_clean_mark(self, broker_epoch: int) -> None:
        """The last thing that a clean close writes."""
        mark = json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":"))
        replace_file(self.path / CLEAN_MARK, mark)

    # -- checkpoints

    def read_checkpoint(self, name: str) -> dict[TopicPartition, int]:
        """`topic partition offset` lines; none where the file is missing or empty.

        Raises CorruptRecordError for a file that is there and makes no sense.
        """
        try:
            text = read_file(self.path / name).decode()
            if not text:  # a broker makes the file before it has anything to put into it
                return {}
            version, count, *lines = text.split("\n")
        except FileNotFoundError:
            return {}
        except ValueError:
            raise CorruptRecordError("not a checkpoint: version, count and lines expected", name) from None
        offsets = {}
        try:
            if int(version) != 0:
                raise ValueError(f"version {version}")
            for line in lines[: int(count)]:
                topic, partition, offset = line.split(" ")
                offsets[TopicPartition(topic, int(partition))] = int(offset)
        except ValueError as error:
            raise CorruptRecordError(f"not a checkpoint: {error}", name) from None
        return offsets

    def write_checkpoint(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Replace a checkpoint durably."""
        lines = [f"{tp.topic} {tp.partition} {offset}" for tp, offset in sorted(offsets.items())]
        replace_file(self.path / name, "\n".join(["0", str(len(lines)), *lines, ""]))

    # -- topics

    def made_by_broker(self) -> bool:
        """Whether a broker has this directory as its own: then its settings are not ours to know."""
        return (self.path / BROKER_MARK).exists()

    def partitions(self) -> dict[str, list[int]]:
        """The topics and their partitions' numbers, from the directories that are there."""
        found: dict[str, list[int]] = {}
        with storage_errors(), os.scandir(self.path) as entries:
            for entry in entries:
                match = PARTITION_DIRECTORY.fullmatch(entry.name)
                if match and match[1] not in (".", "..") and entry.is_dir(follow_symlinks=False):
                    found.setdefault(match[1], []).append(int(match[2]))
        return {topic: sorted(numbers) for topic, numbers in sorted(found.items())}

    def read_topics(self) -> dict[str, dict[str, Any]]:
        """The entries of pylog.topics."""
        try:
            content = json.loads(read_file(self.path / TOPICS))
            if content["version"] != 1:
                raise ValueError(f"version {content['version']} is not known")
            topics: dict[str, dict[str, Any]] = content["topics"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptRecordError(f"the topics' settings cannot be read: {error!r}", TOPICS) from None
        return topics

    def topics_and_partitions(self) -> tuple[dict[str, dict[str, Any]], dict[str, list[int]]]:
        """read_topics() and partitions() of one moment, whatever other processes are making or deleting."""
        entries = self.read_topics()
        while True:
            # Every change begins and ends with its entry: between two looks that are the same there was none.
            before, present, entries = entries, self.partitions(), self.read_topics()
            if entries == before:
                return entries, present

    def write_topics(self, topics: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace pylog.topics durably."""
        replace_file(self.path / TOPICS, json.dumps({"version": 1, "topics": topics}, indent=1) + "\n")

    def make_partition(self, tp: TopicPartition, topic_id: str) -> None:
        """Make a partition's directory with the two small files that a broker expects; nothing if they are there.

        A failure leaves no directory behind.
        """
        path = self.partition_path(tp)
        files = {
            "partition.metadata": f"version: 0\ntopic_id: {topic_id}",
            "leader-epoch-checkpoint": "0\n1\n0 0\n",
        }
        with storage_errors(path):
            if path.is_symlink():
                raise StorageError(errno.ENOTDIR, "a symbolic link in a directory's place is not followed", str(path))
            made = not path.exists()
            path.mkdir(exist_ok=True)
            missing = [name for name in files if not os.path.lexists(path / name)]
            try:
                for name in missing:
                    replace_file(path / name, files[name])
                if missing:
                    sync_directory(self.path)
            except BaseException:
                if made:
                    shutil.rmtree(path, ignore_errors=True)
                raise

    def partition_path(self, tp: TopicPartition) -> Path:
        """Where the partition's files are."""
        return self.path / f"{tp.topic}-{tp.partition}"

    def remove_partitions(self, tps: Iterable[TopicPartition]) -> None:
        """Rename the directories out of the way, durably, then delete them."""
        doomed = []
        for tp in tps:
            path = self.partition_path(tp)
            to = path.with_name(f"{path.name[:200]}.{uuid.uuid4().hex}-delete")
            path.rename(to)
            doomed.append(to)
        sync_directory(self.path)
        for path in doomed:
            shutil.rmtree(path)

    def finish_removals(self) -> None:
        """Delete what interrupted removals and replacements have left."""
        for entry in os.scandir(self.path):
            if entry.name.endswith(".tmp") and not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()
            elif DELETED_DIRECTORY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)


def new_topic_id() -> str:
    """A random topic id as Kafka writes it: 22 characters of base64url."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
