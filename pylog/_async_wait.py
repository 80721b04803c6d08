"""Waiting for a log's bell in asyncio: one thread sleeps for all who await, in whichever event loops they run."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from typing import TYPE_CHECKING

from ._errors import ClosedError

if TYPE_CHECKING:
    from ._log import Log

# The thread sleeps no longer than this at once; longer ones would only save wake-ups of an idle process.
SLEEP_SECONDS_MAX = 1.0


class AsyncWait:
    """Awaitables that are done once the bell was rung.  Thread-safe; made and closed by its Log.

    A waiter reads the bell first and looks for records then, as with the bell itself; the thread completes him once the
    bell no longer reads that.  It wakes him for nothing where nobody may ring (a read_only log): he looks again.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._changed = threading.Condition()
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    async def wait(self, seen: int) -> None:
        """Return once the bell was rung since `seen` was read from it, or sooner.  Raises ClosedError."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise ClosedError(f"{self._log.url} is closed")
            if self._log.bell.read() != seen:
                return
            self._waiters[waiter] = seen
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pylog async wait", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            await waiter
        finally:
            with self._changed:
                self._waiters.pop(waiter, None)

    def close(self) -> None:
        """Raise ClosedError from whatever is awaited, and end the thread."""
        with self._changed:
            self._closed = True
            self._complete(list(self._waiters), ClosedError(f"{self._log.url} is closed"))
            self._changed.notify()
            thread = self._thread
        self._log.bell.ring()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiters and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                bell, nap_seconds = self._log.bell, self._log.nap_seconds
                word = bell.read()
                self._complete([waiter for waiter, seen in self._waiters.items() if seen != word])
            bell.wait(word, min(nap_seconds, SLEEP_SECONDS_MAX))
            if nap_seconds < math.inf:
                with self._changed:
                    self._complete(list(self._waiters))

    def _complete(self, waiters: list[asyncio.Future[None]], error: Exception | None = None) -> None:
        for waiter in waiters:
            del self._waiters[waiter]
            with contextlib.suppress(RuntimeError):  # its event loop was closed, nobody awaits it
                waiter.get_loop().call_soon_threadsafe(_finish, waiter, error)


def _finish(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():  # cancelled meanwhile
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
