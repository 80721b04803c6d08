"""Keys and values from bytes to what handlers want."""

from __future__ import annotations

from .._types import Deserializer, Record


class Decoder:
    """Makes the record that a handler sees.  Pickles, if the deserializers do."""

    def __init__(self, key: Deserializer | None, value: Deserializer | None) -> None:
        self._key = key
        self._value = value

    def __call__(self, record: Record) -> Record:
        """The record with key and value deserialized; raises what the deserializers do."""
        if self._key is None and self._value is None:
            return record
        return Record(
            record.topic,
            record.value if self._value is None or record.value is None else self._value(record.value),
            record.key if self._key is None or record.key is None else self._key(record.key),
            record.headers,
            record.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
        )
