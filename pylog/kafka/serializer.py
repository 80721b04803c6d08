"""What turns keys and values into bytes and back: objects with kafka-python's interface, or any function."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from .errors import KafkaConfigurationError

Headers: TypeAlias = list[tuple[str, bytes]]
Conversion: TypeAlias = Callable[[str, Any, Any], Any]


class Serializer(ABC):
    """Base of objects that make bytes."""

    @abstractmethod
    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        """The bytes; None for a null."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Called when the client is closed."""


class Deserializer(ABC):
    """Base of objects that take bytes."""

    @abstractmethod
    def deserialize(self, topic: str, headers: Any, data: Any) -> Any:
        """What the bytes mean; they may be None."""

    def close(self) -> None:  # noqa: B027 - as above
        """Called when the client is closed."""


class DefaultSerializer(Serializer, Deserializer):
    """Text; bytes and None are left as they are."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.encoding = encoding

    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        """Text as bytes."""
        return data if data is None or isinstance(data, bytes | bytearray | memoryview) else data.encode(self.encoding)

    def deserialize(self, topic: str, headers: Any, data: Any) -> Any:
        """Bytes as text."""
        return None if data is None else data.decode(self.encoding)


class JsonSerializer(DefaultSerializer):
    """JSON; None stays null."""

    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        """Anything that JSON knows as bytes."""
        return None if data is None else super().serialize(topic, headers, json.dumps(data))

    def deserialize(self, topic: str, headers: Any, data: Any) -> Any:
        """What the JSON says."""
        return None if data is None else json.loads(super().deserialize(topic, headers, data))


class SerializeWrapper(Serializer):
    """A function of the data alone as a Serializer; None: bytes are given."""

    def __init__(self, fn: Callable[[Any], Any] | None) -> None:
        self.fn = fn

    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        """What the function makes of it, of None too."""
        return data if self.fn is None else self.fn(data)


class DeserializeWrapper(Deserializer):
    """A function of the data alone as a Deserializer; None: bytes are wanted."""

    def __init__(self, fn: Callable[[Any], Any] | None) -> None:
        self.fn = fn

    def deserialize(self, topic: str, headers: Any, data: Any) -> Any:
        """What the function makes of it, of None too."""
        return data if self.fn is None else self.fn(data)


def conversion(given: Any, verb: str, *, option: str) -> Conversion | None:
    """The option's value as a function of (topic, headers, data); verb: "serialize" or "deserialize".

    Objects of kafka-python 2, whose method has no headers, are served too.  Raises KafkaConfigurationError.
    """
    if given is None:
        return None
    method = getattr(given, verb, None)
    if method is None:
        if not callable(given):
            raise KafkaConfigurationError(f"{option} must be a function or have the method {verb}, not {given!r}")
        return lambda _topic, _headers, data: given(data)
    try:
        inspect.signature(method).bind("topic", [], b"data")
    except TypeError:
        return lambda topic, _headers, data: method(topic, data)
    except ValueError:  # written in C: it does not say
        pass
    result: Conversion = method
    return result


def close_serializer(given: Any) -> None:
    """Tell an option's value that its client is closed."""
    close = getattr(given, "close", None)
    if callable(close):
        close()


__all__ = [
    "DefaultSerializer",
    "DeserializeWrapper",
    "Deserializer",
    "JsonSerializer",
    "SerializeWrapper",
    "Serializer",
]
