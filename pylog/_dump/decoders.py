"""What the keys and values of records are shown as: text, a user's function, or the messages of Kafka's own topics."""

import importlib
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import java
from .output import BrokenFileError
from .schema import LATEST, Message, MessageError, Struct
from .schemas import ASSIGNMENT, CONTROL, OFFSETS, SUBSCRIPTION, TRANSACTIONS

Function = Callable[[bytes], object]
# offset, key, value -> what stands behind "key:" and "payload:"; None: nothing does.
Decoder = Callable[[int, bytes | None, bytes | None], "tuple[Shown | None, Shown | None]"]

END_MARKERS = {0: "ABORT", 1: "COMMIT"}
END_MARKER = struct.Struct(">hi")


class Shown(NamedTuple):
    """A key or value as Kafka's text, and as the JSON form gives it."""

    text: str
    form: Any


def load_function(name: str) -> Function:
    """Find `module:function`, also in the working directory.

    Raises:
        ValueError: no such module or function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} is not of the form module:function")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r}: {error}") from error
    if not callable(function):
        raise ValueError(f"{name!r} cannot be called")
    return function  # type: ignore[no-any-return]


def function_decoder(key_function: Function | None, value_function: Function | None) -> Decoder:
    """Shows each side by its function, by text where that is None."""

    def side(data: bytes | None, function: Function | None) -> Shown | None:
        if data is None:
            return None
        if function is None:
            return Shown(java.text(data), data)
        try:
            text = str(function(data))
        except Exception as error:
            raise BrokenFileError(f"the decoder function failed: {type(error).__name__}: {error}") from error
        return Shown(text, text)

    return lambda _, key, value: (side(key, key_function), side(value, value_function))


def topic_decoder(types: dict[int, tuple[Struct, Struct]]) -> Decoder:
    """Shows the records of a topic whose keys begin with a type number, as JSON."""

    def decode(offset: int, key: bytes | None, value: bytes | None) -> tuple[Shown | None, Shown | None]:
        if key is None:
            raise BrokenFileError(f"offset {offset}: no key, so it is no record of this decoder's topic")
        try:
            kind, key_tree, value_tree = _read(types, key, value)
        except _UnknownTypeError as error:
            text = f"Unknown record type {error.kind} at offset {offset}, skipping."
            return Shown(text, text), None
        except MessageError as error:
            text = f"Error at offset {offset}, skipping. {error}"
            return Shown(text, text), None
        shown_key = _json({"type": str(kind), "data": key_tree})
        return shown_key, Shown("<DELETE>", None) if value_tree is None else _json(value_tree)

    return decode


offsets_decoder = topic_decoder(OFFSETS)
transaction_decoder = topic_decoder(TRANSACTIONS)


class _UnknownTypeError(Exception):
    def __init__(self, kind: int) -> None:
        super().__init__(kind)
        self.kind = kind


def _json(tree: Any) -> Shown:
    return Shown(java.json_text(tree), tree)


def _read(
    types: dict[int, tuple[Struct, Struct]], key: bytes, value: bytes | None
) -> tuple[int, dict[str, Any], dict[str, Any] | None]:
    key_message = Message(key)
    kind = _version(key_message, "key")
    if kind not in types:
        raise _UnknownTypeError(kind)
    key_schema, value_schema = types[kind]
    key_tree = _message(key_message, key_schema, kind, "key")
    if value is None:
        return kind, key_tree, None
    value_message = Message(value)
    version = _version(value_message, "value")
    tree = _message(value_message, value_schema, version, "value")
    if (version < 0 and value_schema.highest < LATEST) or version > value_schema.highest:
        raise MessageError(f"Found an unknown record version {version} for {kind} type")
    if value_schema.name == "GroupMetadataValue" and tree["protocolType"] == "consumer":
        for member in tree["members"]:
            _open_member(member)
    return kind, key_tree, {"version": str(version), "data": tree}


def _version(message: Message, name: str) -> int:
    try:
        return message.number("int16")
    except MessageError:
        raise MessageError(f"Could not read version from {name}'s buffer.") from None


def _message(message: Message, schema: Struct, version: int, name: str) -> dict[str, Any]:
    try:
        return message.struct(schema, max(version, 0))
    except MessageError as error:
        raise MessageError(
            f"Could not read record with version {version} from {name}'s buffer due to: {error}."
        ) from error


def _open_member(member: dict[str, Any]) -> None:
    """Members' own bytes are messages too; where they are not, they stay bytes."""
    for field, schema in (("subscription", SUBSCRIPTION), ("assignment", ASSIGNMENT)):
        try:
            message = Message(member[field])
            member[field] = message.struct(schema, message.number("int16"))
        except MessageError:
            pass


def control_record(key: bytes | None, value: bytes | None) -> Shown:
    """What a control record says.

    Raises:
        BrokenFileError: it says nothing.
    """
    if key is None or len(key) < 4:
        raise BrokenFileError(f"a control record's key of {-1 if key is None else len(key)} bytes, 4 are needed")
    version, kind = struct.unpack_from(">hh", key)
    if version < 0:
        raise BrokenFileError(f"a control record's key of version {version}")
    if kind in END_MARKERS:
        if value is None or len(value) < END_MARKER.size:
            raise BrokenFileError("an end-of-transaction marker without its coordinator epoch")
        epoch = END_MARKER.unpack_from(value)[1]
        tree: dict[str, Any] = {"endTxnMarker": END_MARKERS[kind], "coordinatorEpoch": epoch}
        return Shown(f" endTxnMarker: {END_MARKERS[kind]} coordinatorEpoch: {epoch}", tree)
    if kind not in CONTROL:
        return Shown(f" controlType: UNKNOWN({kind})", {"controlType": kind})
    words, schema = CONTROL[kind]
    try:
        # The version that its first field states decides how the rest is read.
        version = Message(value or b"").number("int16")
        tree = Message(value or b"").struct(schema, version)
    except MessageError as error:
        raise BrokenFileError(f"a control record of type {kind}: {error}") from error
    return Shown(words + java.json_text(tree), {words.strip(" :"): tree})
