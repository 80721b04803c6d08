"""The rig's side of powercut_shim.c: builds it, starts this program again under it, and shares the block with it."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

SOURCE = Path(__file__).with_name("powercut_shim.c")
VARIABLE = "PYLOG_SHIM_FD"
FIELDS = ("skip_every", "syncs", "armed", "calls", "cut_at", "how", "mount_fd", "marker_fd")
MARKER_AT = 8 * len(FIELDS)
MARKER_BYTES_MAX = 64


class Shim:
    """The block; each field of struct control is an attribute-like pair of get and set."""

    def __init__(self, fd: int) -> None:
        self._block = mmap.mmap(fd, mmap.PAGESIZE)

    def get(self, field: str) -> int:
        """The field's value."""
        value: int = struct.unpack_from("q", self._block, 8 * FIELDS.index(field))[0]
        return value

    def set(self, **values: int) -> None:
        """Give fields values, in the order given."""
        for field, value in values.items():
            struct.pack_into("q", self._block, 8 * FIELDS.index(field), value)

    def set_marker(self, marker: bytes) -> None:
        """What is written to marker_fd before the power goes."""
        self._block[MARKER_AT : MARKER_AT + len(marker)] = marker
        struct.pack_into("q", self._block, MARKER_AT + MARKER_BYTES_MAX, len(marker))


def shim() -> Shim:
    """The shim under which this process runs.  Called first thing: starts the program again if it has none yet."""
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        _start_again()
    del os.environ["LD_PRELOAD"]  # for us and what we fork, not for mkfs
    return Shim(int(given))


def _start_again() -> NoReturn:
    fd = os.memfd_create("pylog power cuts, shim", 0)
    os.ftruncate(fd, mmap.PAGESIZE)
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "powercut_shim.so"
        command = ("gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", str(SOURCE), "-o", str(library))
        subprocess.run(command, check=True)
        code = library.read_bytes()
    loaded = os.memfd_create("pylog power cuts, library", 0)  # outlives the directory, and nobody has to remove it
    os.write(loaded, code)
    environment = {**os.environ, VARIABLE: str(fd), "LD_PRELOAD": f"/proc/{os.getpid()}/fd/{loaded}"}
    os.execve(sys.executable, sys.orig_argv, environment)
