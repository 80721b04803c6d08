"""Where the dump goes: UTF-8 bytes on stdout whatever the locale, complaints on stderr, and the exit code."""

import base64
import json
import sys
from typing import Any, BinaryIO, NoReturn

FLUSH_CHARACTERS = 1 << 16


class BrokenFileError(Exception):
    """A file that cannot be read on from here; the message says what is wrong and where."""


class Output:
    """Collects text for one file after another; `problem_found` tells the exit code.

    In JSON mode, `text` is silent and `item` writes; in text mode it is the other way round.
    """

    def __init__(self, *, as_json: bool, out: BinaryIO | None = None, err: BinaryIO | None = None) -> None:
        self._out = sys.stdout.buffer if out is None else out
        self._err = sys.stderr.buffer if err is None else err
        self._pieces: list[str] = []
        self._characters = 0
        self.as_json = as_json
        self.file = ""
        self.problem_found = False

    def text(self, piece: str) -> None:
        """Write text as it is, without a line end of its own."""
        if not self.as_json:
            self._put(piece)

    def item(self, kind: str, **fields: Any) -> None:
        """Write one JSON object for something found in the current file."""
        if self.as_json:
            fields = {"file": self.file, "type": kind, **fields}
            self._put(json.dumps(fields, ensure_ascii=False, default=_not_text) + "\n")

    def complain(self, *lines: str) -> None:
        """Tell of a problem, in lines; in JSON mode it becomes an object on stdout too."""
        self.problem_found = True
        self.item("problem", message="\n".join(lines))
        self.remark(*lines)

    def remark(self, *lines: str) -> None:
        """Say on stderr what is no problem."""
        self.flush()
        self._err.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        self._err.flush()

    def flush(self) -> None:
        """Hand everything to stdout."""
        # File names are the only place where escaped bytes can come from; they go out as they came in.
        self._out.write("".join(self._pieces).encode("utf-8", "surrogateescape"))
        self._out.flush()
        self._pieces.clear()
        self._characters = 0

    def _put(self, piece: str) -> None:
        self._pieces.append(piece)
        self._characters += len(piece)
        if self._characters >= FLUSH_CHARACTERS:
            self.flush()


def bytes_form(data: bytes | None) -> str | dict[str, str] | None:
    """The JSON form of a key, value or header: text where it is UTF-8, else {"base64": ...}."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _not_text(node: object) -> Any:
    if isinstance(node, bytes):
        return bytes_form(node)
    return _no_form(node)


def _no_form(node: object) -> NoReturn:
    raise TypeError(f"{type(node).__name__} has no JSON form")
