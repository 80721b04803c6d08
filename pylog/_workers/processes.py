"""Processes that run a handler, each one record at a time for whichever lane asks."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .._errors import InvalidConfigurationError
from .._types import Record
from .decoding import Decoder

# A fresh interpreter: a fork would copy locks that other threads hold.
_CONTEXT = multiprocessing.get_context("spawn")
END_SECONDS_MAX = 5.0


class WorkerDiedError(RuntimeError):
    """The process that handled a record ended before it was done."""


class ProcessPool:
    """At most `count` processes, started when they are needed.  Thread-safe.

    They end when their pipe does, so also when this process is killed.
    """

    def __init__(self, count: int, handler: Callable[[Record], object], decoder: Decoder) -> None:
        try:
            self._payload = pickle.dumps((handler, decoder))
        except Exception as error:
            raise InvalidConfigurationError(
                f"processes=True: the handler and the deserializers must pickle, and do not: {error}"
            ) from error
        # Those in use are out of it.  The last one back is the first to go: no more are started than are needed.
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)
        self._count = count
        self._starting = threading.Lock()

    def check(self) -> None:
        """Start a process.  Raises InvalidConfigurationError if it cannot load the handler."""
        process = self._free.get()
        try:
            process = process or self._start()
        except Exception as error:
            raise InvalidConfigurationError(
                f"processes=True: a new process cannot load the handler ({error}); it imports the main module, which "
                'must start the workers under `if __name__ == "__main__":` only'
            ) from error
        finally:
            self._free.put(process)

    def run(self, record: Record) -> None:
        """Handle a record in one of the processes.  Raises what the handler did, or WorkerDiedError."""
        process = self._free.get()
        try:
            if process is None:
                process = self._start()
            error = process.ask(record)
        except WorkerDiedError:
            process = None
            raise
        finally:
            self._free.put(process)
        if error is not None:
            raise error

    def close(self) -> None:
        """End the processes; nobody uses them any more."""
        for _ in range(self._count):
            process = self._free.get()
            if process is not None:
                process.end()

    def _start(self) -> _Process:
        with self._starting:
            return _Process(self._payload)


class _Process:
    def __init__(self, payload: bytes) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, payload), name="pylog worker", daemon=True)
        try:
            self._process.start()
        finally:
            theirs.close()
        if (error := self._receive()) is not None:
            self.end()
            raise error

    def ask(self, record: Record) -> Exception | None:
        """Handle it; what went wrong.  Raises WorkerDiedError."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receiving then tells why
            self._pipe.send_bytes(pickle.dumps(record))
        return self._receive()

    def end(self) -> None:
        """It ends by itself once the pipe does."""
        self._pipe.close()
        self._process.join(END_SECONDS_MAX)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()

    def _receive(self) -> Exception | None:
        try:
            told = self._pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            self._process.join()
            died = WorkerDiedError(f"process {self._process.pid} ended with exit code {self._process.exitcode}")
            self.end()
            raise died from None
        try:
            answer: Exception | None = pickle.loads(told)  # noqa: S301 - our own child's
        except Exception as error:
            return error
        return answer


def _serve(pipe: Connection, payload: bytes) -> None:
    """In the child: handle record after record, until the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which drains

    handler: Callable[[Record], object]
    try:
        handler, decoder = pickle.loads(payload)  # noqa: S301 - the parent's
        pipe.send_bytes(_told(None))
    except Exception as error:
        pipe.send_bytes(_told(error))
        return
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while True:
            data = pipe.recv_bytes()
            failure: BaseException | None = None
            try:
                handler(decoder(pickle.loads(data)))  # noqa: S301 - the parent's
            except BaseException as error:
                failure = error
            pipe.send_bytes(_told(failure))


def _told(error: BaseException | None) -> bytes:
    """The error as bytes that the parent can read, whatever the error is."""
    if error is None:
        return pickle.dumps(None)
    told: Any = error
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - the other half
    except Exception:
        told = None
    if not isinstance(told, Exception):
        told = RuntimeError(f"{type(error).__name__}: {error}")
    told.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    return pickle.dumps(told)
