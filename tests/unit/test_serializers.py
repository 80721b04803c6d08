"""Serializers by name: what they write, what they read, and what they refuse."""

import json
import math
import sys

import pytest

from pylog._errors import InvalidConfigurationError
from pylog._serializers import resolve_deserializer, resolve_serializer

VALUE = {"id": 1, "name": "Zoë ☂", "tags": [None, True, 1.5, ""], "nested": {"": -(2**53)}}


@pytest.fixture(params=["msgspec", "standard library"])
def json_library(request, monkeypatch):
    if request.param == "msgspec":
        pytest.importorskip("msgspec")
    else:
        without_msgspec(monkeypatch)


def without_msgspec(monkeypatch):
    for name in ("msgspec", "msgspec.json", "msgspec.msgpack"):
        monkeypatch.setitem(sys.modules, name, None)


def serializer(choice):
    return resolve_serializer(choice, option="value_serializer")


def deserializer(choice):
    return resolve_deserializer(choice, option="value_deserializer")


def test_none_means_no_conversion():
    assert serializer(None) is None
    assert deserializer(None) is None


def test_a_callable_is_returned_as_it_is():
    assert serializer(repr) is repr
    assert deserializer(bytes.hex) is bytes.hex


def test_str_is_utf_8_and_reads_back():
    assert serializer("str")("Zoë") == b"Zo\xc3\xab"
    assert deserializer("str")(b"Zo\xc3\xab") == "Zoë"


def test_str_refuses_what_is_no_text():
    with pytest.raises(TypeError):
        serializer("str")(b"bytes")
    with pytest.raises(UnicodeDecodeError):
        deserializer("str")(b"\xff")


@pytest.mark.usefixtures("json_library")
def test_json_is_compact_utf_8_under_either_library():
    assert serializer("json")(VALUE) == json.dumps(VALUE, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.usefixtures("json_library")
def test_json_reads_back_under_either_library():
    assert deserializer("json")(serializer("json")(VALUE)) == VALUE


@pytest.mark.usefixtures("json_library")
def test_json_writes_no_bare_nan_under_either_library():
    try:
        written = serializer("json")([math.nan])
    except ValueError:
        return
    assert written == b"[null]"


@pytest.mark.usefixtures("json_library")
def test_broken_json_is_a_value_error_under_either_library():
    with pytest.raises(ValueError):  # noqa: PT011  (each library has its own subclass and text)
        deserializer("json")(b'{"a":')


def test_msgpack_reads_back():
    pytest.importorskip("msgspec")
    value = {**VALUE, "raw": b"\x00\xff"}
    assert serializer("msgpack")(1) == b"\x01"
    assert deserializer("msgpack")(serializer("msgpack")(value)) == value


@pytest.mark.parametrize("resolve", [resolve_serializer, resolve_deserializer])
def test_msgpack_without_its_library_names_option_and_extra(resolve, monkeypatch):
    without_msgspec(monkeypatch)
    with pytest.raises(InvalidConfigurationError, match=r"key_xyz .*pip install pylog-storage\[json\]"):
        resolve("msgpack", option="key_xyz")


@pytest.mark.parametrize("resolve", [resolve_serializer, resolve_deserializer])
@pytest.mark.parametrize("choice", ["jsn", "", b"json", 1, ["json"]])
def test_any_other_choice_is_refused_with_the_allowed_ones(resolve, choice):
    with pytest.raises(InvalidConfigurationError, match=r"key_xyz is .*'str', 'json', 'msgpack'"):
        resolve(choice, option="key_xyz")
