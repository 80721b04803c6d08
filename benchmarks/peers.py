"""Other stores, each used the way its own users make it fast, none of them fsynced.

Peers outside the standard library are imported when they are made, so that the others run without them.
"""
# ruff: noqa: D102 - a peer's methods are Peer's, documented there

from __future__ import annotations

import sqlite3
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar

from benchmarks.harness import Store

FRAME = struct.Struct("<II")  # length, CRC-32
LMDB_KEY = struct.Struct(">Q")  # big-endian: LMDB sorts keys as bytes
READ_BUFFER_BYTES = 1 << 20


class Peer(Store):
    """A store that takes values in order and gives them back in order. ``with`` closes it."""

    name: ClassVar[str]

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        self.directory = directory
        self.batch_records = batch_records

    def before_produce(self, values: list[bytes]) -> None:
        """What a long-running writer of these values has done before the first: connect, make topics."""

    @abstractmethod
    def produce_one_by_one(self, values: list[bytes]) -> None:
        """One call per value; all of them are handed to the operating system when it returns."""

    @abstractmethod
    def produce_batches(self, values: list[bytes]) -> None:
        """One call per ``batch_records`` values; the same state when it returns."""

    @abstractmethod
    def count(self) -> int:
        """How many records the store itself says it holds."""

    def before_consume(self) -> None:
        """What a long-running reader has done before the first record: open, connect, assign."""

    @abstractmethod
    def chunks(self) -> Iterator[list[bytes]]:
        """Every value in order, as lists of bytes."""

    @abstractmethod
    def iterate(self) -> int:
        """Touch offset, key and value of every record in a Python loop; the number of records."""

    def consume(self) -> int:
        """Read every value as lists of bytes; the number of values."""
        return sum(map(len, self.chunks()))


class PlainFile(Peer):
    """Frames of length, CRC-32 and value in one file, through a buffer of ``open()``'s own size."""

    name = "plain file"
    buffer_bytes: ClassVar[int] = -1

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        self.path = directory / "plain"

    def produce_one_by_one(self, values: list[bytes]) -> None:
        pack, crc32 = FRAME.pack, zlib.crc32
        with self.path.open("wb", buffering=self.buffer_bytes) as file:
            write = file.write
            for value in values:
                write(pack(len(value), crc32(value)) + value)

    def produce_batches(self, values: list[bytes]) -> None:
        pack, crc32 = FRAME.pack, zlib.crc32
        with self.path.open("wb", buffering=0) as file:
            for start in range(0, len(values), self.batch_records):
                batch = values[start : start + self.batch_records]
                file.write(b"".join([pack(len(value), crc32(value)) + value for value in batch]))

    def count(self) -> int:
        return self.consume()

    def chunks(self) -> Iterator[list[bytes]]:
        values = self._values()
        while chunk := list(islice(values, self.batch_records)):
            yield chunk

    def iterate(self) -> int:
        records = 0
        for offset, value in enumerate(self._values()):
            _touched = offset, None, value
            records += 1
        return records

    def _values(self) -> Iterator[bytes]:
        unpack, crc32, frame_bytes = FRAME.unpack, zlib.crc32, FRAME.size
        with self.path.open("rb", buffering=READ_BUFFER_BYTES) as file:
            read = file.read
            while header := read(frame_bytes):
                length, crc = unpack(header)
                value = read(length)
                if crc32(value) != crc:
                    raise ValueError(f"{self.path}: crc does not match before position {file.tell()}")
                yield value

    def close(self) -> None:
        pass


class PlainFileLargeBuffer(PlainFile):
    """The same file written through a buffer of 1 MiB."""

    name = "plain file, 1 MiB buffer"
    buffer_bytes = 1 << 20


class Lmdb(Peer):
    """LMDB with the offset as an 8-byte key, appended; a transaction for each ``batch_records`` records.

    One by one is a ``put`` per record within such a transaction, batches are a ``putmulti``.
    """

    name = "LMDB"
    map_bytes: ClassVar[int] = 1 << 40

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        import lmdb

        self.environment = lmdb.open(str(directory / "lmdb"), map_size=self.map_bytes, sync=False, metasync=False)

    def produce_one_by_one(self, values: list[bytes]) -> None:
        pack, step = LMDB_KEY.pack, self.batch_records
        for start in range(0, len(values), step):
            with self.environment.begin(write=True) as transaction:
                put = transaction.put
                for offset, value in enumerate(values[start : start + step], start):
                    put(pack(offset), value, append=True)

    def produce_batches(self, values: list[bytes]) -> None:
        pack, step = LMDB_KEY.pack, self.batch_records
        for start in range(0, len(values), step):
            batch = values[start : start + step]
            with self.environment.begin(write=True) as transaction:
                pairs = zip(map(pack, range(start, start + len(batch))), batch, strict=True)
                transaction.cursor().putmulti(pairs, append=True)

    def count(self) -> int:
        return int(self.environment.stat()["entries"])

    def chunks(self) -> Iterator[list[bytes]]:
        with self.environment.begin() as transaction:
            values = iter(transaction.cursor().iternext(keys=False, values=True))
            while chunk := list(islice(values, self.batch_records)):
                yield chunk

    def consume_pairs(self) -> int:
        """Read every record as lists of (key, value); the number of records."""
        records = 0
        with self.environment.begin() as transaction:
            pairs = iter(transaction.cursor().iternext(keys=True, values=True))
            while chunk := list(islice(pairs, self.batch_records)):
                records += len(chunk)
        return records

    def iterate(self) -> int:
        unpack, records = LMDB_KEY.unpack, 0
        with self.environment.begin() as transaction:
            for key, value in transaction.cursor():
                _touched = unpack(key)[0], None, value
                records += 1
        return records

    def close(self) -> None:
        self.environment.close()


class SqliteWal(Peer):
    """A table of offset and value in write-ahead mode, a transaction for each ``batch_records`` records.

    One by one is an ``execute`` per record within such a transaction, batches are an ``executemany``.
    """

    name = "SQLite WAL"
    insert: ClassVar[str] = "INSERT INTO records (offset, value) VALUES (?, ?)"

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        self.connection = sqlite3.connect(directory / "records.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("CREATE TABLE records (offset INTEGER PRIMARY KEY, value BLOB)")

    def produce_one_by_one(self, values: list[bytes]) -> None:
        execute, insert, step = self.connection.execute, self.insert, self.batch_records
        for start in range(0, len(values), step):
            execute("BEGIN")
            for row in enumerate(values[start : start + step], start):
                execute(insert, row)
            execute("COMMIT")

    def produce_batches(self, values: list[bytes]) -> None:
        for start in range(0, len(values), self.batch_records):
            self.connection.execute("BEGIN")
            self.connection.executemany(self.insert, enumerate(values[start : start + self.batch_records], start))
            self.connection.execute("COMMIT")

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM records").fetchone()[0])

    def chunks(self) -> Iterator[list[bytes]]:
        cursor = self.connection.execute("SELECT value FROM records ORDER BY offset")
        while rows := cursor.fetchmany(self.batch_records):
            yield [value for (value,) in rows]

    def iterate(self) -> int:
        records = 0
        for offset, value in self.connection.execute("SELECT offset, value FROM records ORDER BY offset"):
            _touched = offset, None, value
            records += 1
        return records

    def close(self) -> None:
        self.connection.close()
