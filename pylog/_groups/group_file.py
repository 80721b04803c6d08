"""A group's file: who is in the group, and who is to consume what.

     0  magic, layout version
    16  the generation: raised with every change
  4096  the state, as JSON behind its length and CRC, twice: the generation's lowest bit names the copy that holds

Whoever changes the state holds the lock of byte 0, writes the copy that is not in use, and then the generation: a
process that dies in between has changed nothing.  Readers take no lock.  Other bytes' locks tell who lives and who owns
(their numbers lie far behind the file's end): a member holds its own as long as it lives, and that of each partition
that it consumes.  A state that makes no sense (a power cut) is an empty one: those who live enter themselves again.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import threading
import urllib.parse
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .._errors import InvalidConfigurationError
from .._locks import LockFile, byte_lock
from .._types import TopicPartition

PREFIX = "pylog.group."
MAGIC = b"pylog.gr"
LAYOUT = 1
HEADER = struct.Struct("<8sI")
GENERATION = struct.Struct("<Q")
GENERATION_AT = 16
COPY = struct.Struct("<II")
COPY_AT, COPY_BYTES = 4096, 8 << 20
NAME_BYTES_MAX = 255

MUTEX = 0
MEMBERS_AT = 1 << 20
PARTITIONS_AT = 1 << 40


@dataclass
class MemberState:
    """What a group knows of a member."""

    number: int
    pid: int
    instance: str | None
    topics: list[str] | None
    pattern: str | None
    strategies: list[str]
    assigned: dict[str, list[int]] = field(default_factory=dict)

    @property
    def partitions(self) -> list[TopicPartition]:
        """What it is to consume."""
        return [TopicPartition(topic, number) for topic, numbers in self.assigned.items() for number in numbers]


@dataclass
class GroupState:
    """A group at one generation."""

    generation: int = 0
    next_number: int = 0
    strategy: str = ""
    topics: dict[str, int] = field(default_factory=dict)  # numbers that stand for them in the locks
    members: dict[str, MemberState] = field(default_factory=dict)  # by member id


def group_file_name(group: str) -> str:
    """The file's name; any text may name a group.  Raises ValueError where it is too long for a file."""
    name = PREFIX + urllib.parse.quote(group, safe="")
    if len(name) > NAME_BYTES_MAX:
        raise ValueError(f"group_id {group[:20]!r}... is too long: encoded it takes {len(name)} bytes of 255")
    return name


def groups_with_files(directory: Path) -> list[str]:
    """The groups that have a file here."""
    return [urllib.parse.unquote(path.name[len(PREFIX) :]) for path in directory.glob(f"{PREFIX}*")]


class GroupFile:
    """One member's (or an onlooker's) handle of a group's file.  Thread-safe.

    changing: `with` it, nobody else changes the group's state.  The file may be another's than before: see is_current.
    """

    def __init__(self, directory: Path, group: str) -> None:
        self._path = directory / group_file_name(group)
        self._locks = LockFile(self._path)
        # Nothing in it refers to this object: who drops a member without closing it gives its locks back at once.
        self.changing = byte_lock(threading.RLock(), self._locks, MUTEX, functools.partial(_begin_change, self._locks))

    def is_current(self) -> bool:
        """Whether this is still the group's file; a deleted group's is not."""
        return self._locks.is_current()

    def generation(self) -> int:
        """The generation now."""
        data = os.pread(self._locks.fd, GENERATION.size, GENERATION_AT)
        return int(GENERATION.unpack(data)[0]) if len(data) == GENERATION.size else 0

    def load(self) -> GroupState:
        """The state now."""
        while True:
            generation = self.generation()
            state = self._read_copy(generation)
            if state is not None:
                return state
            if self.generation() == generation:
                return GroupState(generation=generation)

    def store(self, state: GroupState) -> None:
        """Put the state in force, with the next generation.  Caller is changing.  Raises InvalidConfigurationError."""
        state.generation = self.generation() + 1
        data = json.dumps(asdict(state), separators=(",", ":")).encode()
        if len(data) > COPY_BYTES - COPY.size:
            raise InvalidConfigurationError(f"{self._path.name}: a state of {len(data)} bytes is too large")
        at = COPY_AT + (state.generation & 1) * COPY_BYTES
        os.pwrite(self._locks.fd, COPY.pack(len(data), zlib.crc32(data)) + data, at)
        os.pwrite(self._locks.fd, GENERATION.pack(state.generation), GENERATION_AT)

    def _read_copy(self, generation: int) -> GroupState | None:
        at = COPY_AT + (generation & 1) * COPY_BYTES
        head = os.pread(self._locks.fd, COPY.size, at)
        if len(head) < COPY.size:
            return None
        length, crc = COPY.unpack(head)
        data = os.pread(self._locks.fd, min(length, COPY_BYTES), at + COPY.size)
        if len(data) != length or zlib.crc32(data) != crc or not data:  # zeros, where only the other was written
            return None
        tree = json.loads(data)
        tree["members"] = {name: MemberState(**member) for name, member in tree["members"].items()}
        state = GroupState(**tree)
        return state if state.generation == generation else None

    # -- who lives, who owns

    def claim_member(self, number: int) -> None:
        """Live as this member from here on; nobody else has had the number.  Caller is changing."""
        if not self._locks.try_lock(MEMBERS_AT + number):
            raise InvalidConfigurationError(f"{self._path}: member {number} lives already")

    def lives(self, number: int) -> bool:
        """Whether that member, another handle's, is alive."""
        return self._locks.is_held(MEMBERS_AT + number)

    def release_member(self, number: int) -> None:
        """Live no longer."""
        self._locks.unlock(MEMBERS_AT + number)

    def try_own(self, topic: int, partition: int) -> bool:
        """Own a partition, unless another member still does."""
        return self._locks.try_lock(PARTITIONS_AT + (topic << 20) + partition)

    def disown(self, topic: int, partition: int) -> None:
        """Let go of a partition."""
        self._locks.unlock(PARTITIONS_AT + (topic << 20) + partition)

    def remove(self) -> None:
        """Remove the file.  Caller is changing, and nobody lives."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give all locks back."""
        self._locks.close()

    def mark_forked(self) -> None:
        """In a forked child: the locks are the parent's alone."""
        self._locks.mark_forked()


def _begin_change(locks: LockFile) -> None:
    locks.lock(MUTEX)
    head = os.pread(locks.fd, HEADER.size, 0)
    if not head.strip(b"\0"):
        os.pwrite(locks.fd, HEADER.pack(MAGIC, LAYOUT), 0)
    elif len(head) < HEADER.size or HEADER.unpack(head) != (MAGIC, LAYOUT):
        raise InvalidConfigurationError(f"{locks.path}: not a group's file of this version of pylog")
