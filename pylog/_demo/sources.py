"""The text that the demo works on: files that were named, or some that the machine has anyway."""

import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A record must fit, with its key and its batch's header, into the default of max_message_bytes.
LINE_BYTES_MAX = 1_000_000
CHUNK_BYTES = 1 << 20
LICENSES = Path("/usr/share/common-licenses")
STANDARD_LIBRARY_FILES_MAX = 16


class InputError(Exception):
    """What was asked for cannot be worked on; the message names it."""


class Source(NamedTuple):
    """A file of text as it was looked over: what is appended to it later is not read."""

    path: Path
    key: bytes
    size: int
    line_count: int


def default_paths() -> list[Path]:
    """Files of text that are there without anybody's doing: Debian's licenses, else Python's own library."""
    found = _files(LICENSES, "*")
    if found:
        return found
    library = Path(sysconfig.get_path("stdlib"))
    found = _files(library, "LICENSE*") + _files(library, "*.py")
    if not found:
        raise InputError("no text was found on this machine to work on; name a file: pylog demo FILE")
    return found[:STANDARD_LIBRARY_FILES_MAX]


def _files(directory: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in directory.glob(pattern)
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) and path.stat().st_size
    )


def look_over(paths: list[Path]) -> list[Source]:
    """Read every file once: each must be text with lines that fit into a record.

    Raises:
        InputError: one is not, or cannot be read.
    """
    distinct = set(paths)
    base_names_do = len({path.name for path in distinct}) == len(distinct)
    sources = []
    for path in paths:
        try:
            size, line_count = _measure(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        sources.append(Source(path, os.fsencode(path.name if base_names_do else path), size, line_count))
    return sources


def _measure(path: Path) -> tuple[int, int]:
    # Looked at before it is opened: opening a pipe would wait for its writer.
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a directory; name files, for example {path}/*")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is no regular file (it is read twice)")
    size = line_count = 0
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX + 2):
            size += len(line)
            line_count += 1
            if b"\0" in line:
                raise InputError(f"{path}: line {line_count} holds a zero byte: a binary file, the demo wants text")
            if len(line) > LINE_BYTES_MAX + line.endswith(b"\n"):
                raise InputError(f"{path}: line {line_count} is longer than {LINE_BYTES_MAX:,} bytes")
    if size == 0:
        raise InputError(f"{path}: is empty, there is nothing to show")
    return size, line_count


def read_lines(source: Source) -> Iterator[list[bytes]]:
    """The file's lines without their newlines, some thousands at a time.

    Raises:
        InputError: it is not what it was when it was looked over.
    """
    line_count = 0
    rest = b""
    left = source.size
    try:
        with source.path.open("rb") as file:
            while left and (data := file.read(min(left, CHUNK_BYTES))):
                left -= len(data)
                *lines, rest = (rest + data).split(b"\n")
                if not left and rest:
                    lines.append(rest)
                if lines:
                    line_count += len(lines)
                    yield lines
    except OSError as error:
        raise InputError(f"{source.path}: {error.strerror or error}") from error
    if left or line_count != source.line_count:
        raise InputError(f"{source.path}: has changed while it was read; try again, or with a copy of it")
