"""Notices the death of processes: one thread for a Log, asleep on process descriptors."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections.abc import Collection
from typing import Protocol

# What no descriptor tells (a handle that was dropped without close, an id that another process has got) is looked for.
LOOK_SECONDS = 1.0
LOOK_SECONDS_WITHOUT_PIDFD = 0.05


class Watching(Protocol):
    """Who wants to be told."""

    def look(self) -> None:
        """Somebody may have died."""


class Watcher:
    """Calls back when a process has died, and now and then besides.  Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        # Weak: a handle that was dropped without close is not kept alive by being told of others.
        self._watched: weakref.WeakKeyDictionary[Watching, frozenset[int]] = weakref.WeakKeyDictionary()
        self._fds: dict[int, int] = {}  # pid -> descriptor, -1: there is none to be had
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._stopped = False

    def watch(self, who: Watching, pids: Collection[int]) -> None:
        """Call who.look() when one of these processes has died; takes the place of what `who` has watched before."""
        with self._lock:
            if self._stopped:
                return
            self._watched[who] = frozenset(pids) - {os.getpid()}
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name} watcher", daemon=True)
                self._thread.start()
        os.eventfd_write(self._wake, 1)

    def forget(self, who: Watching) -> None:
        """Call back no more."""
        with self._lock:
            self._watched.pop(who, None)

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            thread = self._thread
        os.eventfd_write(self._wake, 1)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for fd in self._fds.values():
            if fd >= 0:
                os.close(fd)
        os.close(self._wake)

    def _open_new(self) -> None:
        with self._lock:
            wanted = {pid for pids in self._watched.values() for pid in pids}
        for pid in self._fds.keys() - wanted:
            if (fd := self._fds.pop(pid)) >= 0:
                os.close(fd)
        for pid in wanted - self._fds.keys():
            try:
                self._fds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._fds[pid] = -1
                self._tell({pid})
            except OSError:
                self._fds[pid] = -1

    def _run(self) -> None:
        while not self._stopped:
            self._open_new()
            poller = select.poll()
            poller.register(self._wake, select.POLLIN)
            pid_of = {fd: pid for pid, fd in self._fds.items() if fd >= 0}
            for fd in pid_of:
                poller.register(fd, select.POLLIN)
            seconds = LOOK_SECONDS if len(pid_of) == len(self._fds) else LOOK_SECONDS_WITHOUT_PIDFD
            ready = [fd for fd, _ in poller.poll(seconds * 1000)]
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            dead = {pid_of[fd] for fd in ready if fd in pid_of}
            for pid in dead:
                os.close(self._fds[pid])
                self._fds[pid] = -1
            if not self._stopped:
                self._tell(dead if ready else None)

    def _tell(self, dead: Collection[int] | None) -> None:
        """Call back those who watch one of the dead; None: all."""
        with self._lock:
            told = [who for who, pids in self._watched.items() if dead is None or not pids.isdisjoint(dead)]
        for who in told:
            try:
                who.look()
            except Exception as error:
                arguments = type(error), error, error.__traceback__, threading.current_thread()
                with contextlib.suppress(Exception):
                    threading.excepthook(threading.ExceptHookArgs(arguments))
