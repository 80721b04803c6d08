"""What the system asks for by itself: bare.c, built with the C compiler that built pylog."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SOURCE = Path(__file__).with_name("bare.c")


@cache
def _program() -> Path:
    program = Path(mkdtemp(prefix="pylog-bare-")) / "bare"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, SOURCE], check=True)
    return program


def latencies(*arguments: str) -> list[float]:
    """Seconds of each operation of one run of bare.c."""
    lines = subprocess.run([_program(), *arguments], check=True, capture_output=True, text=True).stdout.split()
    return [int(line) / 1e9 for line in lines]
