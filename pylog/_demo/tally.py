"""What went in or came out, in figures and a checksum, so that the two can be compared."""

import hashlib
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from pylog._types import Record


class CheckError(Exception):
    """What came out is not what went in."""


class Tally:
    """Counts records and value bytes, and keeps a sha256 of each key's lines in their order."""

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self._lines: dict[bytes, hashlib._Hash] = {}

    def add(self, key: bytes, lines: list[bytes]) -> None:
        """Count the lines as the next ones of the key."""
        if not lines:
            return
        of_key = self._lines.setdefault(key, hashlib.sha256())
        of_key.update(b"\n".join(lines) + b"\n")
        self.records += len(lines)
        self.bytes += sum(map(len, lines))

    def add_records(self, records: Iterable[Record]) -> None:
        """Count records of one partition."""
        for key, run in groupby(records, attrgetter("key")):
            self.add(key, [record.value for record in run])

    @property
    def sha256(self) -> str:
        """One checksum for all of it; the keys' order does not matter, that of a key's lines does."""
        total = hashlib.sha256()
        for key, of_key in sorted(self._lines.items()):
            total.update(hashlib.sha256(key).digest() + of_key.digest())
        return total.hexdigest()

    def check(self, expected: "Tally", what: str) -> None:
        """Raise CheckError unless both are the same."""
        if self.records != expected.records:
            raise CheckError(f"{what}: {self.records:,} records came out, {expected.records:,} were expected")
        if self.bytes != expected.bytes:
            raise CheckError(f"{what}: {self.bytes:,} bytes came out, {expected.bytes:,} were expected")
        if self.sha256 != expected.sha256:
            raise CheckError(f"{what}: the lines that came out are not those that went in, or in another order")
