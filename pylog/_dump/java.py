"""How Java turns bytes, numbers and JSON trees into text, where Python would write something else."""

import base64
import json
import re
from typing import Any

# Java replaces a whole encoded surrogate by one U+FFFD; Python would replace each of its bytes.
_ENCODED_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]?")
_LOWER_HEX_ESCAPE = re.compile(r"(\\\\)|\\u(00[01][0-9a-f])")


def text(data: bytes) -> str:
    """Decode UTF-8 as Java's String does: nothing fails, broken bytes become U+FFFD."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _ENCODED_SURROGATE.sub(b"\xff", data).decode("utf-8", "replace")


def int32(number: int) -> int:
    """Wrap to a Java int."""
    return (number + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def int64(number: int) -> int:
    """Wrap to a Java long."""
    return (number + (1 << 63) & (1 << 64) - 1) - (1 << 63)


def sequence_after(sequence: int, increment: int) -> int:
    """The sequence number `increment` records on: 2^31-1 is followed by 0."""
    if sequence > int32(0x7FFFFFFF - increment):
        return int32(increment - (0x7FFFFFFF - sequence) - 1)
    return int32(sequence + increment)


def sequence_before(sequence: int, decrement: int) -> int:
    """The sequence number `decrement` records back."""
    if sequence < decrement:
        return int32(0x7FFFFFFF - (decrement - sequence) + 1)
    return int32(sequence - decrement)


def optional_long(number: int | None) -> str:
    """An OptionalLong."""
    return "OptionalLong.empty" if number is None else f"OptionalLong[{number}]"


def boolean(truth: bool) -> str:
    """A boolean."""
    return "true" if truth else "false"


def uuid(data: bytes) -> str:
    """A Kafka Uuid: 22 characters of base64url."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes_node(node: object) -> str:
    if isinstance(node, bytes):
        return base64.b64encode(node).decode()
    raise TypeError(f"{type(node).__name__} has no JSON form")


def json_text(tree: Any) -> str:
    """A JSON tree on one line as Jackson writes it: no spaces, no ASCII escapes, bytes as base64, upper-case hex."""
    line = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), default=_bytes_node)
    return _LOWER_HEX_ESCAPE.sub(lambda found: found[1] or f"\\u{found[2].upper()}", line)
