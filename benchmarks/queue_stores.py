"""Queues that take messages, hand each to one consumer, and forget it when that has acked it.

Each is used the way its own users make it fast. Durable: what was put, and what was acked, is on the disk when the call
returns; otherwise nothing is fsynced. Peers outside the standard library are imported when they are made.
"""
# ruff: noqa: D102 - a store's methods are QueueStore's, documented there

from __future__ import annotations

import importlib
import queue
import shutil
import sqlite3
import subprocess
import time
from abc import abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pylog
from benchmarks.harness import Store

REDIS_SECONDS_TO_START = 20.0


class QueueStore(Store):
    """A queue in a directory, for this process. ``with`` closes it."""

    name: ClassVar[str]
    package: ClassVar[str | None] = None  # to be imported
    program: ClassVar[str | None] = None  # to be run
    has_batches: ClassVar[bool] = True
    has_processes: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, directory: Path, *, durable: bool) -> None: ...

    @classmethod
    def missing(cls) -> str | None:
        """What would have to be installed; None: nothing."""
        if cls.package is not None and find_spec(cls.package) is None:
            return f"{cls.name} is left out: the Python package {cls.package} is not installed"
        if cls.program is not None and shutil.which(cls.program) is None:
            return f"{cls.name} is left out: {cls.program} is not installed"
        return None

    @abstractmethod
    def put(self, value: bytes) -> None:
        """Put one message in."""

    @abstractmethod
    def get_and_ack(self) -> bytes:
        """Take one message, and ack it; there must be one."""

    def put_many(self, values: list[bytes]) -> None:
        """Put many in at once."""
        raise NotImplementedError

    def get_and_ack_many(self, count: int) -> list[bytes]:
        """Take at most ``count`` messages and ack them at once; none: there is nothing."""
        raise NotImplementedError


class PylogQueue(QueueStore):
    """pylog."""

    name = "pylog"

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._log = pylog.open(directory / "data", flush_ms=None)
        self._queue = self._log.queue("bench", acks="all" if durable else 1)

    def put(self, value: bytes) -> None:
        self._queue.put(value).get()

    def get_and_ack(self) -> bytes:
        message = self._queue.get(0)
        message.ack()
        value: bytes = message.value
        return value

    def put_many(self, values: list[bytes]) -> None:
        self._queue.put_many(values).get()

    def get_and_ack_many(self, count: int) -> list[bytes]:
        try:
            messages = self._queue.get_many(count, timeout=0)
        except queue.Empty:
            return []
        self._queue.ack_many(messages)
        return [message.value for message in messages]

    def close(self) -> None:
        self._log.close()


class SqliteQueue(QueueStore):
    """A table of one's own: claimed by an update, acked by a delete."""

    name = "SQLite WAL"

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._db = sqlite3.connect(directory / "queue.db", isolation_level=None, timeout=60)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        self._db.execute("CREATE TABLE IF NOT EXISTS q (id INTEGER PRIMARY KEY, value BLOB, taken INTEGER DEFAULT 0)")
        self._db.execute("CREATE INDEX IF NOT EXISTS free ON q (id) WHERE taken = 0")

    def put(self, value: bytes) -> None:
        self._db.execute("INSERT INTO q (value) VALUES (?)", (value,))

    def get_and_ack(self) -> bytes:
        (value,) = self.get_and_ack_many(1)
        return value

    def put_many(self, values: list[bytes]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO q (value) VALUES (?)", ((value,) for value in values))
        self._db.execute("COMMIT")

    def get_and_ack_many(self, count: int) -> list[bytes]:
        taken = self._db.execute(
            "UPDATE q SET taken = 1 WHERE id IN (SELECT id FROM q WHERE taken = 0 ORDER BY id LIMIT ?)"
            " RETURNING id, value",
            (count,),
        ).fetchall()
        if taken:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM q WHERE id = ?", ((number,) for number, _ in taken))
            self._db.execute("COMMIT")
        return [value for _, value in taken]

    def close(self) -> None:
        self._db.close()


class PersistQueue(QueueStore):
    """persist-queue's SQLiteAckQueue, which pickles, and has no batches."""

    name = "persist-queue"
    package = "persistqueue"
    has_batches = has_processes = False

    def __init__(self, directory: Path, *, durable: bool) -> None:
        module: Any = importlib.import_module("persistqueue")
        self._queue = module.SQLiteAckQueue(str(directory / "persist"))
        for connection in (self._queue._putter, self._queue._getter):
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")

    def put(self, value: bytes) -> None:
        self._queue.put(value)

    def get_and_ack(self) -> bytes:
        value: bytes = self._queue.get(block=False)
        self._queue.ack(value)
        return value

    def close(self) -> None:
        self._queue.close()


class LiteQueue(QueueStore):
    """litequeue, whose messages are text, and which has no batches."""

    name = "litequeue"
    package = "litequeue"
    has_batches = has_processes = False

    def __init__(self, directory: Path, *, durable: bool) -> None:
        module: Any = importlib.import_module("litequeue")
        self._queue = module.LiteQueue(directory / "lite.db")
        self._queue.conn.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")

    def put(self, value: bytes) -> None:
        self._queue.put(value.decode("latin-1"))

    def get_and_ack(self) -> bytes:
        message = self._queue.pop()
        self._queue.done(message.message_id)
        value: bytes = message.data.encode("latin-1")
        return value

    def close(self) -> None:
        self._queue.close()


class RedisStream(QueueStore):
    """A stream of a Redis server of its own, with an append-only file: XREADGROUP, then XACK and XDEL."""

    name = "Redis Streams"
    package = "redis"
    program = "redis-server"

    def __init__(self, directory: Path, *, durable: bool) -> None:
        module: Any = importlib.import_module("redis")
        socket = directory / "redis.sock"
        self._server = None if socket.exists() else self._start(directory, socket, durable)
        self._redis = module.Redis(unix_socket_path=str(socket))
        self._wait(module)
        if self._server is not None:
            self._redis.xgroup_create("q", "g", mkstream=True)

    def _start(self, directory: Path, socket: Path, durable: bool) -> subprocess.Popen[bytes]:
        options = {
            "dir": str(directory),
            "port": "0",
            "unixsocket": str(socket),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if durable else "no",
        }
        command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def _wait(self, module: Any) -> None:
        end = time.monotonic() + REDIS_SECONDS_TO_START
        while True:
            try:
                self._redis.ping()
            except module.exceptions.ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return

    def put(self, value: bytes) -> None:
        self._redis.xadd("q", {"v": value})

    def get_and_ack(self) -> bytes:
        (value,) = self.get_and_ack_many(1)
        return value

    def put_many(self, values: list[bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for value in values:
                pipeline.xadd("q", {"v": value})
            pipeline.execute()

    def get_and_ack_many(self, count: int) -> list[bytes]:
        found = self._redis.xreadgroup("g", "c", {"q": ">"}, count=count)
        if not found:
            return []
        entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
        numbers = [number for number, _ in entries]
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xack("q", "g", *numbers)
            pipeline.xdel("q", *numbers)
            pipeline.execute()
        return [fields[b"v"] for _, fields in entries]

    def close(self) -> None:
        self._redis.close()
        if self._server is not None:
            self._server.terminate()
            self._server.wait()


STORES: tuple[type[QueueStore], ...] = (PylogQueue, SqliteQueue, PersistQueue, LiteQueue, RedisStream)
