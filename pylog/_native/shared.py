"""What processes share: lock files, guarded mappings, bells, and pylog.shm."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .calls import call, ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer


def open_lock_file(directory: str, name: str) -> int:
    """A descriptor for locks, which no forked child keeps."""
    out = ffi.new("int32_t *")
    call(lib.plog_lock_file_open, os.fsencode(directory), os.fsencode(name), out)
    return int(out[0])


def close_lock_file(fd: int) -> None:
    """Close it; its locks must have been given back."""
    lib.plog_lock_file_close(fd)


class Guard:
    """Guards memory-mapped bytes: where their file was cut, or cannot be read, they are zeros, and is_whole tells.

    To be released before the memory is unmapped.
    """

    def __init__(self, data: Buffer) -> None:
        view = ffi.from_buffer(data)
        out = ffi.new("plog_guard **")
        call(lib.plog_guard_new, ffi.cast("uint8_t *", view), len(view), out)
        self._view = view
        # It holds the view: forgotten, the guard must go before the memory does.
        self._guard = ffi.gc(out[0], lambda guard, _=view: lib.plog_guard_free(guard))

    def is_whole(self) -> bool:
        """Whether what was read until now was there."""
        return not lib.plog_guard_lost(self._guard)

    def release(self) -> None:
        """Guard no longer, and let go of the buffer."""
        ffi.release(self._guard)
        ffi.release(self._view)


def renew_guard() -> None:
    """See that a fault in mapped bytes still comes to the engine, whatever handler was installed meanwhile."""
    call(lib.plog_guard_renew)


class _Rung:
    """What readers sleep on; every append rings it.  Thread-safe."""

    pointer: Any

    def read(self) -> int:
        """Return the word to hand to wait; read it before looking for records."""
        return int(lib.plog_bell_read(self.pointer))

    def ring(self) -> None:
        """Wake everybody who waits."""
        lib.plog_bell_ring(self.pointer)

    def wait(self, seen: int, seconds: float) -> bool:
        """Sleep until the bell was rung since `seen` was read, a signal came or the time is over; whether it rang."""
        return bool(lib.plog_bell_wait(self.pointer, seen, int(seconds * 1e6)))


class Bell(_Rung):
    """The bell of one process's own directory."""

    def __init__(self) -> None:
        bell = lib.plog_bell_new()
        if bell == ffi.NULL:
            raise MemoryError("out of memory")
        self.pointer = ffi.gc(bell, lib.plog_bell_free)


class SharedBell(_Rung):
    """The bell of all processes that have a directory open."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.pointer = lib.plog_shared_bell(shared.pointer)


class Shared:
    """What the processes that have a directory open share: pylog.shm, mapped for as long as this object lives.

    alone: nobody else has the directory open, as its locks say; the file is made anew.
    """

    def __init__(self, directory: str, *, alone: bool) -> None:
        out = ffi.new("plog_shared **")
        call(lib.plog_shared_open, os.fsencode(directory), alone, out)
        self._hold(out[0])

    def _hold(self, pointer: Any, *, writable: bool = True) -> None:
        self.pointer = ffi.gc(pointer, lib.plog_shared_close)
        self.bell = SharedBell(self)
        self.writable = writable  # False: the bell must not be touched

    @classmethod
    def follow(cls, directory: str) -> Shared:
        """The same for a reader.  Raises where there is none that this version of pylog can read."""
        out, writable = ffi.new("plog_shared **"), ffi.new("int32_t *")
        call(lib.plog_shared_follow, os.fsencode(directory), out, writable)
        shared = cls.__new__(cls)
        shared._hold(out[0], writable=bool(writable[0]))
        return shared

    @property
    def fd(self) -> int:
        """The file's descriptor, to tell it from another one of its name."""
        return int(lib.plog_shared_fd(self.pointer))

    def topics_generation(self) -> int:
        """A number that changes when topics or settings do.  Odd: a process is changing them, or has died in it."""
        return int(lib.plog_shared_topics_generation(self.pointer))

    def topics_changing(self) -> None:
        """This process is about to: topics_changed must follow, and does by another process if this one dies."""
        lib.plog_shared_topics_changing(self.pointer)

    def topics_changed(self) -> None:
        """Tell all processes that they have."""
        lib.plog_shared_topics_changed(self.pointer)

    def slot_names(self, start: int = 0) -> list[str]:
        """Directory names of the partitions that any process has opened, "orders-0"; deleted ones are empty.

        Raises StorageError where the file was cut from outside: it says nothing any more.
        """
        names: list[str] = []
        while (name := lib.plog_shared_slot_name(self.pointer, start + len(names))) != ffi.NULL:
            names.append(ffi.string(name).decode(errors="surrogateescape"))
        call(lib.plog_shared_check, self.pointer)
        return names

    def slot_opened(self, at: int) -> bool:
        """Whether the partition's log was recovered, and can be followed."""
        return bool(lib.plog_shared_slot_opened(self.pointer, at))


class Watch:
    """Which of many logs have got something since they were read to their end, by their slots in the shared state."""

    def __init__(self, shared: Shared | None, count: int) -> None:
        self._shared = shared
        self._count = count
        self._resting = 0
        self._slots = ffi.new("int32_t[]", [-1] * count)
        self._seen = ffi.new("uint64_t[]", count)
        self._out = ffi.new("int32_t[]", count)

    def rest(self, at: int, slot: int, sequence: int) -> None:
        """Number `at` was read to where its slot had published `sequence`."""
        assert self._shared is not None
        self._resting += self._slots[at] < 0
        self._slots[at], self._seen[at] = slot, sequence

    def stir(self, at: int) -> None:
        """Number `at` is no longer watched."""
        self._resting -= self._slots[at] >= 0
        self._slots[at] = -1

    def changed(self) -> list[int]:
        """Those that got something; they are no longer watched."""
        if self._shared is None or self._resting == 0:
            return []
        found = lib.plog_shared_changed(self._shared.pointer, self._slots, self._seen, self._count, self._out)
        numbers = [int(self._out[i]) for i in range(found)]
        for at in numbers:
            self.stir(at)
        return numbers
