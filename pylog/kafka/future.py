"""kafka-python's future: what it came to is in attributes, and callbacks may be added at any time."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, Self

from .errors import KafkaTimeoutError, RetriableError

logger = logging.getLogger("pylog")


class Future:
    """The result of something that is over, or will be.  Thread-safe."""

    def __init__(self) -> None:
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_done(self) -> bool:
        """Whether it is over."""
        return self._settled.is_set()

    @property
    def value(self) -> Any:
        """The result; None before, and after a failure."""
        return self._value

    @property
    def exception(self) -> BaseException | None:
        """What went wrong; None before, and after a success."""
        return self._error

    def succeeded(self) -> bool:
        """Whether it is over and went well."""
        return self.is_done and self.exception is None

    def failed(self) -> bool:
        """Whether it is over and went wrong."""
        return self.is_done and self.exception is not None

    def retriable(self) -> bool:
        """Whether it failed with an error that may pass."""
        return self.is_done and isinstance(self.exception, RetriableError)

    def success(self, value: Any) -> Self:
        """It is over, and this is the result."""
        return self._settle(value, None)

    def failure(self, e: BaseException | type[BaseException]) -> Self:
        """It is over, and this went wrong."""
        return self._settle(None, e() if isinstance(e, type) else e)

    def get(self, timeout: float | None = None) -> Any:
        """Wait (seconds; None: for ever) and return the result, or raise what went wrong or KafkaTimeoutError."""
        if not self._settled.wait(timeout):
            raise KafkaTimeoutError(f"not done within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value

    def add_callback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call f(*args, value, **kwargs) on success.  Returns self."""
        call = functools.partial(f, *args, **kwargs)
        self._when_settled(lambda: self._error is None and call(self._value))
        return self

    def add_errback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call f(*args, error, **kwargs) on failure.  Returns self."""
        call = functools.partial(f, *args, **kwargs)
        self._when_settled(lambda: self._error is not None and call(self._error))
        return self

    def add_both(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call f(*args, value or error, **kwargs).  Returns self."""
        return self.add_callback(f, *args, **kwargs).add_errback(f, *args, **kwargs)

    def chain(self, future: Future) -> Self:
        """Let another future come to the same.  Returns self."""
        return self.add_callback(future.success).add_errback(future.failure)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.is_done:
            yield self
        return self.get(0)

    def _settle(self, value: Any, error: BaseException | None) -> Self:
        with self._lock:
            self._value, self._error = value, error
            self._settled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            _run(callback)
        return self

    def _when_settled(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if not self._settled.is_set():
                self._callbacks.append(callback)
                return
        _run(callback)


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # one callback must not take the others' results with it
        logger.exception("a callback of a future failed")
