"""One daemon thread for a Log: runs functions when they are due (linger, flush, checkpoints)."""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Background:
    """Runs each function once, at or soon after its time, one after the other.  Thread-safe.

    A function that raises is reported through threading.excepthook; what matters to somebody must be kept by the
    function itself for whoever asks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def after(self, seconds: float, function: Callable[[], object]) -> None:
        """Run `function` in `seconds`."""
        at = time.monotonic() + seconds
        with self._wake:
            if self._stopped:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            heapq.heappush(self._due, (at, next(self._order), function))
            if self._due[0][0] == at:
                self._wake.notify()

    def stop(self) -> None:
        """Drop what is not yet due and wait for what runs."""
        with self._wake:
            self._stopped = True
            self._due.clear()
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _next(self) -> Callable[[], object] | None:
        with self._wake:
            while not self._stopped:
                if not self._due:
                    self._wake.wait()
                elif (left := self._due[0][0] - time.monotonic()) > 0:
                    self._wake.wait(min(left, threading.TIMEOUT_MAX))
                else:
                    return heapq.heappop(self._due)[2]
            return None

    def _run(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except Exception as error:
                told = type(error), error, error.__traceback__, threading.current_thread()
                with contextlib.suppress(Exception):  # a hook that fails must not end the flushing
                    threading.excepthook(threading.ExceptHookArgs(told))
                del told
            del function
