"""One daemon thread for a Log: runs functions when they are due (linger, flush, checkpoints)."""

import contextlib
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator


class Background:
    """Runs each function once, at or soon after its time, one after the other.  Thread-safe.

    A function that raises is reported through threading.excepthook; what matters to somebody must be kept by the
    function itself for whoever asks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Ctrl-C anywhere in put harms nothing; in a Condition's methods it may leave the lock taken.
        self._news: queue.SimpleQueue[tuple[float, int, Callable[[], object]] | None] = queue.SimpleQueue()
        self._order = itertools.count()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def after(self, seconds: float, function: Callable[[], object]) -> None:
        """Run `function` in `seconds`."""
        self._news.put((time.monotonic() + seconds, next(self._order), function))
        if self._thread is None and not self._stopped:
            self._start()

    def stop(self) -> None:
        """Drop what is not yet due and wait for what runs."""
        with self._starting:
            self._stopped = True
        self._news.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._stopped:
                return
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None  # Ctrl-C: if it has begun all the same, it sees that it is not wanted
                raise

    def _due(self) -> Iterator[Callable[[], object]]:
        """Each function when its time has come, until stop is called."""
        waiting: list[tuple[float, int, Callable[[], object]]] = []
        while not self._stopped:
            left = waiting[0][0] - time.monotonic() if waiting else None
            if left is not None and left <= 0:
                yield heapq.heappop(waiting)[2]
                continue
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=None if left is None else min(left, threading.TIMEOUT_MAX))
                if news is not None:
                    heapq.heappush(waiting, news)
                del news  # it holds the log

    def _run(self) -> None:
        with self._starting:
            if self._thread is not threading.current_thread():
                return
        for function in self._due():
            try:
                function()
            except Exception as error:
                told = type(error), error, error.__traceback__, threading.current_thread()
                with contextlib.suppress(Exception):  # a hook that fails must not end the flushing
                    threading.excepthook(threading.ExceptHookArgs(told))
                del told
            del function
