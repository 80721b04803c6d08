"""Serializers and deserializers by name, as the options key_serializer, value_deserializer and so on take them.

    name     bytes                               made and read by
    str      UTF-8                               str.encode, bytes.decode
    json     JSON in UTF-8, no spaces            msgspec where it is installed, else the standard library
    msgpack  MessagePack                         msgspec (extra `json`)

Null stays null: callers never hand None to what is returned here.
"""

import importlib
import json
from collections.abc import Callable
from typing import Any

from pylog._errors import InvalidConfigurationError

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]


def resolve_serializer(choice: Serializer | str | None, *, option: str) -> Serializer | None:
    """The callable that a serializer option means; None where values are bytes already.

    Raises:
        InvalidConfigurationError: `choice` is neither callable, None nor a known name, or its library is not
            installed; names `option`.
    """
    if choice is None or callable(choice):
        return choice
    match choice:
        case "str":
            return str.encode
        case "json":
            return _msgspec_json("encode") or _json_encode
        case "msgpack":
            return _msgpack("encode", option)
    raise _unknown(choice, option)


def resolve_deserializer(choice: Deserializer | str | None, *, option: str) -> Deserializer | None:
    """The callable that a deserializer option means; None where bytes are wanted. Raises as resolve_serializer does."""
    if choice is None or callable(choice):
        return choice
    match choice:
        case "str":
            return bytes.decode
        case "json":
            return _msgspec_json("decode") or json.loads
        case "msgpack":
            return _msgpack("decode", option)
    raise _unknown(choice, option)


def _unknown(choice: object, option: str) -> InvalidConfigurationError:
    return InvalidConfigurationError(
        f"{option} is {choice!r}; allowed are 'str', 'json', 'msgpack', a callable, or None"
    )


def _json_encode(value: Any) -> bytes:
    # Infinity and NaN have no JSON form; the text that json would write for them no other reader takes.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _msgspec_json(verb: str) -> Callable[[Any], Any] | None:
    try:
        codec: Callable[[Any], Any] = getattr(importlib.import_module("msgspec.json"), verb)
    except ImportError:
        return None
    return codec


def _msgpack(verb: str, option: str) -> Callable[[Any], Any]:
    try:
        codec: Callable[[Any], Any] = getattr(importlib.import_module("msgspec.msgpack"), verb)
    except ImportError as error:
        raise InvalidConfigurationError(f"{option} 'msgpack' needs msgspec: pip install pylog-storage[json]") from error
    return codec
