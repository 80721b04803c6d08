"""Kafka's messages: a reader driven by tables, from bytes of any version to the tree that Kafka prints as JSON.

Encoding: numbers big-endian; string = i16 length (-1 null) + UTF-8; bytes and arrays = i32 length or count (-1 null).
In a flexible version all lengths and counts are unsigned varints of length + 1 (0 null), and every struct ends with its
tagged fields: count, then tag, size and value each. A tagged field is shown where it differs from its default.
"""

import struct
from typing import Any, NamedTuple

from . import java

# Java's exception for a number that is cut off has no message, which prints as this.
UNDERFLOW = "null"
LATEST = 1 << 15
NEVER = LATEST

_NUMBERS = {
    "int8": struct.Struct(">b"),
    "int16": struct.Struct(">h"),
    "uint16": struct.Struct(">H"),
    "int32": struct.Struct(">i"),
    "int64": struct.Struct(">q"),
}


class Field(NamedTuple):
    """One field; `kind` is a number's name, string, bytes, uuid, a Struct, or a list of one of these."""

    name: str
    kind: Any
    since: int = 0
    until: int = LATEST
    nullable: bool = False
    tag: int | None = None
    default: Any = None


class Struct(NamedTuple):
    """Fields in their order on disk; flexible from that version on; `highest` is the last version known."""

    name: str
    fields: tuple[Field, ...]
    flexible: int = NEVER
    highest: int = LATEST


class MessageError(Exception):
    """Bytes that are no such message; the message is worded as Kafka's."""


class Message:
    """A cursor over the bytes of one message."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, name: str) -> int:
        """The next number, such as an int16."""
        form = _NUMBERS[name]
        if form.size > len(self.data) - self.at:
            raise MessageError(UNDERFLOW)
        self.at += form.size
        return int(form.unpack_from(self.data, self.at - form.size)[0])

    def struct(self, schema: Struct, version: int) -> dict[str, Any]:
        """The next struct as a dict in the order of its fields.

        Raises:
            MessageError: the bytes end too early, or a field is null that must not be.
        """
        flexible = version >= schema.flexible
        tree: dict[str, Any] = {}
        for field in schema.fields:
            if field.tag is None and field.since <= version <= field.until:
                tree[field.name] = self._value(field, version, flexible)
        if flexible:
            tags: dict[int | None, Field] = {
                field.tag: field for field in schema.fields if field.tag is not None and field.since <= version
            }
            tree |= self._tagged(tags, version)
            tree = {field.name: tree[field.name] for field in schema.fields if field.name in tree}
        return tree

    def _tagged(self, fields: dict[int | None, Field], version: int) -> dict[str, Any]:
        tree = {}
        for _ in range(self._unsigned()):
            tag, size = self._unsigned(), self._unsigned()
            if field := fields.get(tag):
                if field.kind.__class__ is Struct and self._unsigned() == 0:
                    value = None
                else:
                    value = self._value(field, version, flexible=True)
                if value != field.default:
                    tree[field.name] = value
            else:
                self._take(size)
        return tree

    def _value(self, field: Field, version: int, flexible: bool) -> Any:
        kind = field.kind
        if isinstance(kind, list):
            count = self._unsigned() - 1 if flexible else self.number("int32")
            if count < 0:
                return self._null(field)
            if count > len(self.data) - self.at:
                left = len(self.data) - self.at
                raise MessageError(
                    f"Tried to allocate a collection of size {count}, but there are only {left} bytes remaining."
                )
            element = Field(f"{field.name} element", kind[0])
            return [self._value(element, version, flexible) for _ in range(count)]
        if isinstance(kind, Struct):
            if version > kind.highest:
                raise MessageError(f"Can't read version {version} of {kind.name}")
            return self.struct(kind, version)
        if kind == "uuid":
            return java.uuid(self._take(16))
        if kind in _NUMBERS:
            return self.number(kind)
        size = self._unsigned() - 1 if flexible else self.number("int16" if kind == "string" else "int32")
        if size < 0:
            return self._null(field)
        data = self._take(size)
        return java.text(data) if kind == "string" else data

    def _null(self, field: Field) -> None:
        if not field.nullable:
            raise MessageError(f"non-nullable field {field.name} was serialized as null")

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self.number("int8")) < 0:
            number |= (byte & 0x7F) << shift
            shift += 7
            if shift > 28:
                raise MessageError("Varint is too long, the most significant bit in the 5th byte is set")
        return java.int32(number | byte << shift)

    def _take(self, size: int) -> bytes:
        left = len(self.data) - self.at
        if size > left:
            raise MessageError(f"Error reading byte array of {size} byte(s): only {left} byte(s) available")
        self.at += size
        return self.data[self.at - size : self.at]
