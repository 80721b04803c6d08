"""The table of a queue's messages that were handed out, or wait: a plain file, mapped by every process that uses it.

     0  words of 8 bytes: magic, layout, capacity, free entries, frontier, next due, who changes, changes, owners,
        bytes of the last snapshot, the frontier when space was last looked for
   128  the topic's id: tells a queue from an earlier one of its name
   512  the queue's settings: their length, and JSON
  4096  for each owner, how many entries it holds
 20480  the entries

A message at or behind the frontier was handed to nobody yet and has no entry; one below it that has no entry is
settled.  An entry's due time (of the monotonic clock) is when it may be handed out: again, if it is in flight.

The table is volatile.  Who opens the queue while nobody else has it open writes it anew, from the journal; only the
delivery counts are taken from what he finds.  Changes are made under the lock of byte MUTEX, in such an order that a
process that dies between two stores leaves entries of a dead owner at worst, or a list of free entries that does not
fit them: who gets the lock next sees that somebody was at it, and repairs.  Each owner (one handle of the queue) holds
the lock of its own byte as long as it lives.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import threading
from pathlib import Path

import numpy as np

from .. import _native
from .._directory import storage_errors
from .._errors import ClosedError, InvalidConfigurationError, PylogError, StorageError
from .._locks import LockFile, byte_lock, holder
from .._types import Array

MAGIC = int.from_bytes(b"pylog.qu", "little")
LAYOUT = 1
TOPIC_ID_AT, TOPIC_ID_BYTES = 128, 64
SETTINGS_AT, SETTINGS_BYTES = 512, 3584
COUNTERS_AT = 4096
OWNERS_MAX = 4096
ENTRIES_AT = COUNTERS_AT + 4 * OWNERS_MAX
CAPACITY_MIN = 256
ENTRY = np.dtype(
    [
        ("offset", "<i8"),  # -1: the entry is free
        ("due", "<i8"),  # ns
        ("note", "<i8"),  # where in the journal the last reason stands; -1: none
        ("body", "<i8"),  # where in the journal the message stands; -1: where it was put
        ("key", "<u8"),  # its hash; 0: none
        ("owner", "<u4"),  # 0: it waits
        ("count", "<u4"),  # deliveries
        ("free", "<u4"),  # a list of its own: the free entries
        ("", "<u4"),
    ]
)

HEAD = struct.Struct("<qqq")
MAGIC_WORD, LAYOUT_WORD, CAPACITY, FREE, FRONTIER, NEXT_DUE, CHANGING, CHANGES, OWNERS, SNAPSHOT, LOOKED = range(11)
NEVER = 2**63 - 1
ONE = struct.Struct("<qqqqQII")  # an entry, but for the list of free ones

NUMBER = struct.Struct("<q")

MUTEX, SPACE = 0, 1
OWNERS_AT = 1 << 40


class Table:
    """One handle's view of the file.  Fields are for who holds the table, but for a glance at a word.

    held: `with` it, nobody else changes the table; what an exception leaves is repaired by the next who holds it.
    joining: the same for who comes, and is an owner from then on; gives whether nobody else is one: the table is to be
    written anew.  making_space: be the only one to give space back; not while holding the table.
    Each raises ClosedError, ForkError, StorageError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            self._locks = LockFile(path)
        self._alone = threading.Lock()
        self.held = byte_lock(self._alone, self._locks, MUTEX, self._begin, self._end)
        self.joining = byte_lock(self._alone, self._locks, MUTEX, self._begin_joining, self._end_joining)
        self.making_space = byte_lock(threading.Lock(), self._locks, SPACE, lambda: self._take(SPACE))
        self._gone: type[PylogError] | None = None
        self._guard: _native.Guard | None = None
        self.me = 0
        self.words: Array = np.zeros(16, np.int64)
        self.counters: Array = np.zeros(0, np.uint32)
        self.entries: Array = np.zeros(0, ENTRY)

    # -- the lock

    def _take(self, byte: int) -> None:
        _native.check_fork()
        if self._gone is not None:
            raise self._gone(f"{self.path.name}: the queue is closed, or the parent process's")
        self._locks.lock(byte)

    def _begin(self) -> None:
        self._take(MUTEX)
        if len(self.entries) != self.words[CAPACITY]:
            self._map()
        if self._guard is not None and not self._guard.is_whole():
            raise StorageError(errno.EIO, "was cut from outside", str(self.path))
        if self.words[CHANGING]:
            self._repair()
        self.words[CHANGING] = self.me

    def _end(self) -> None:
        self.words[CHANGING] = 0

    def _begin_joining(self) -> bool:
        self._take(MUTEX)
        alone = holder(self._locks.fd, OWNERS_AT, OWNERS_MAX) is None
        if self._is_table():
            self._map()
        elif not alone:
            raise InvalidConfigurationError(f"{self.path.name}: not of this version of pylog, and in use")
        else:
            os.ftruncate(self._locks.fd, 0)
            self._grow(CAPACITY_MIN)
            self.words[[MAGIC_WORD, LAYOUT_WORD]] = MAGIC, LAYOUT
        if not alone and self.words[CHANGING]:
            self._repair()
        self.words[CHANGING] = OWNERS_MAX
        return alone

    def _end_joining(self) -> None:
        self._become_owner()
        self._end()

    def _is_table(self) -> bool:
        magic, layout, capacity = HEAD.unpack(os.pread(self._locks.fd, HEAD.size, 0).ljust(HEAD.size, b"\0"))
        size = os.fstat(self._locks.fd).st_size
        return (magic, layout) == (MAGIC, LAYOUT) and 0 < capacity * ENTRY.itemsize <= size - ENTRIES_AT

    def _become_owner(self) -> None:
        for number in range(1, OWNERS_MAX):
            if self._locks.try_lock(OWNERS_AT + number):
                self.me = number
                self.words[OWNERS] = max(self.words[OWNERS], number)
                self.release(number)  # of who had the number before
                return
        raise InvalidConfigurationError(f"{self.path.name}: {OWNERS_MAX - 1} handles of the queue are open")

    def lives(self, owner: int) -> bool:
        """Whether that owner, another handle, is alive."""
        return self._locks.is_held(OWNERS_AT + owner)

    # -- the file

    def _map(self, capacity: int | None = None) -> None:
        self._unmap()
        if capacity is None:
            capacity = HEAD.unpack(os.pread(self._locks.fd, HEAD.size, 0))[CAPACITY]
        size = ENTRIES_AT + capacity * ENTRY.itemsize
        # Through a descriptor of its own: the mapping keeps one, in forked children too, and with it the locks.
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            memory = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._guard = _native.Guard(memory)
        self.words = np.frombuffer(memory, np.int64, 16)
        self.counters = np.frombuffer(memory, np.uint32, OWNERS_MAX, COUNTERS_AT)
        self.entries = np.frombuffer(memory, ENTRY, capacity, ENTRIES_AT)
        self._memory: mmap.mmap | bytearray = memory
        self._header = np.frombuffer(memory, np.uint8, COUNTERS_AT)

    def _unmap(self) -> None:
        if self._guard is not None:
            self._guard.release()
            self._guard = None
        # The memory goes with the last array over it.
        self.words, self.entries, self._memory = np.zeros(16, np.int64), np.zeros(0, ENTRY), bytearray()
        self.counters, self._header = np.zeros(0, np.uint32), np.zeros(0, np.uint8)

    def _grow(self, capacity: int) -> None:
        was = len(self.entries)
        with storage_errors(self.path):
            # Allocated first: a store into a hole of the file would be a fault where the disk is full.
            os.posix_fallocate(self._locks.fd, 0, ENTRIES_AT + capacity * ENTRY.itemsize)
            self._map(capacity)
        self.entries["offset"][was:] = -1
        self.words[CAPACITY] = capacity
        self._give_back(np.arange(was, capacity, dtype=np.uint32))

    def _repair(self) -> None:
        """Somebody has died, or failed, while changing the table."""
        entries, words = self.entries, self.words
        entries["offset"][entries["offset"] >= words[FRONTIER]] = -1  # entered, and not yet handed out
        self._refill()
        owners = entries["owner"][entries["offset"] >= 0]
        self.counters[:] = np.bincount(owners, minlength=OWNERS_MAX)[:OWNERS_MAX]
        words[NEXT_DUE] = 0
        words[CHANGES] += 1

    def _refill(self) -> None:
        free = np.flatnonzero(self.entries["offset"] < 0)
        self.entries["free"][: len(free)] = free
        self.words[FREE] = len(free)

    def clear(self, frontier: int, topic_id: str, settings: bytes) -> None:
        """Write the table anew, without entries."""
        self.entries["offset"] = -1
        self._refill()
        self.counters[:] = 0
        self.words[FRONTIER : LOOKED + 1] = frontier, NEVER, self.words[CHANGING], 0, 0, 0, frontier
        self._header[TOPIC_ID_AT : TOPIC_ID_AT + TOPIC_ID_BYTES] = _padded(topic_id.encode(), TOPIC_ID_BYTES)
        kept = len(settings).to_bytes(4, "little") + settings
        self._header[SETTINGS_AT : SETTINGS_AT + SETTINGS_BYTES] = _padded(kept, SETTINGS_BYTES)

    @property
    def topic_id(self) -> str:
        """The topic that the table was written for."""
        kept = self._header[TOPIC_ID_AT : TOPIC_ID_AT + TOPIC_ID_BYTES].tobytes()
        return kept.rstrip(b"\0").decode(errors="replace")

    @property
    def settings(self) -> bytes:
        """The queue's settings, as JSON."""
        kept = self._header[SETTINGS_AT : SETTINGS_AT + SETTINGS_BYTES].tobytes()
        return kept[4 : 4 + int.from_bytes(kept[:4], "little")]

    # -- entries

    def enter(self, offsets: Array, dues: Array | int, keys: Array | int, *, bodies: Array | int = -1) -> Array:
        """New entries that wait; their numbers.  Caller moves the frontier behind them."""
        count = len(offsets)
        free = int(self.words[FREE])
        if count > free:
            self._grow(max(2 * len(self.entries), len(self.entries) + count))
            free = int(self.words[FREE])
        slots = self.entries["free"][free - count : free].copy()
        self.words[FREE] = free - count
        for name, value in (("due", dues), ("note", -1), ("body", bodies), ("key", keys), ("owner", 0), ("count", 0)):
            self.entries[name][slots] = value
        self.entries["offset"][slots] = offsets
        return slots

    def enter_in_flight(self, offset: int, deadline: int) -> int:
        """A new entry of mine, of the message at the frontier, delivered once; its number."""
        words, me = self.words, self.me
        free = int(words[FREE])
        if not free:
            self._grow(2 * len(self.entries))
            words, free = self.words, int(self.words[FREE])
        slot = int(self.entries["free"][free - 1])
        words[FREE] = free - 1
        self.counters[me] += 1
        ONE.pack_into(self._memory, ENTRIES_AT + slot * ENTRY.itemsize, offset, deadline, -1, -1, 0, me, 1)
        words[FRONTIER] = offset + 1
        if deadline < words[NEXT_DUE]:
            words[NEXT_DUE] = deadline
        return slot

    def is_mine(self, slot: int, offset: int, count: int) -> bool:
        """Whether this delivery of a message is still mine."""
        found = ONE.unpack_from(self._memory, ENTRIES_AT + slot * ENTRY.itemsize)
        return (found[0], found[5], found[6]) == (offset, self.me, count)

    def remove_one(self, slot: int) -> None:
        """This one of my entries is settled."""
        words, free = self.words, int(self.words[FREE])
        NUMBER.pack_into(self._memory, ENTRIES_AT + slot * ENTRY.itemsize, -1)
        self.counters[self.me] -= 1
        self.entries["free"][free] = slot
        words[FREE] = free + 1
        words[CHANGES] += 1

    def remove(self, slots: Array) -> None:
        """These of my entries are settled."""
        self.entries["offset"][slots] = -1
        self.counters[self.me] -= len(slots)
        self._give_back(slots)
        self.words[CHANGES] += 1

    def _give_back(self, slots: Array) -> None:
        free = int(self.words[FREE])
        self.entries["free"][free : free + len(slots)] = slots
        self.words[FREE] = free + len(slots)

    def lease(self, slots: Array, deadline: int, counts: Array) -> None:
        """These are in flight with me, delivered so often."""
        before = self.entries["owner"][slots]
        self.counters[self.me] += len(slots)
        self.entries["owner"][slots] = self.me  # first: if I die now, a dead owner's are handed out at once
        self.entries["due"][slots] = deadline
        self.entries["count"][slots] = counts
        if before.any():
            np.subtract.at(self.counters, before[before > 0], 1)
        self.due_at(deadline)

    def put_back(self, slots: Array, due: int) -> None:
        """These of my entries wait, until they are due."""
        self.entries["due"][slots] = due  # first: without an owner it counts
        self.entries["owner"][slots] = 0
        self.counters[self.me] -= len(slots)
        self.due_at(due)
        self.words[CHANGES] += 1

    def release(self, owner: int) -> None:
        """All that this owner had in flight may be handed out at once."""
        slots = np.flatnonzero((self.entries["owner"] == owner) & (self.entries["offset"] >= 0))
        self.entries["due"][slots] = 0
        self.entries["owner"][slots] = 0
        self.counters[owner] = 0
        if len(slots):
            self.due_at(0)
            self.words[CHANGES] += 1

    def due_at(self, due: int) -> None:
        """Something is due then."""
        if due < self.words[NEXT_DUE]:
            self.words[NEXT_DUE] = due

    def live(self) -> Array:
        """Numbers of the entries, those of older messages first."""
        slots = np.flatnonzero(self.entries["offset"] >= 0)
        return slots[np.argsort(self.entries["offset"][slots], kind="stable")]

    def count(self) -> int:
        """How many entries there are."""
        return int(self.words[CAPACITY] - self.words[FREE])

    # -- closing

    def close(self) -> None:
        """Give up what is in flight, and be an owner no longer."""
        if self.me and self._gone is None:
            with contextlib.suppress(StorageError), self.held:
                self.release(self.me)
        with self._alone:
            self._gone = ClosedError
            self._unmap()
            self._locks.close()

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: the parent's."""
        self._gone = error
        self._locks.mark_forked()


def _padded(data: bytes, size: int) -> Array:
    assert len(data) <= size
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8)
