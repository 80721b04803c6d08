"""A segment that is cut from outside, or cannot be read, under its mapping: an error, and never a dead process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("cut_child.py")
WAYS = (
    *("iterate", "poll", "read", "scan", "find_time", "dump", "append", "threads", "fork"),
    *("faulthandler_before", "faulthandler_after", "read_only", "shared_state"),
)


def run_child(name: str, directory: Path, mode: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, CHILD, name, str(directory), mode]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", WAYS)
def test_reading_a_cut_segment_is_an_error(name: str, tmp_path: Path) -> None:
    done = run_child(name, tmp_path / "data", "guarded")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("name", ["scan", "fork"])
def test_without_the_guard_the_process_dies(name: str, tmp_path: Path) -> None:
    done = run_child(name, tmp_path / "data", "unguarded")
    assert done.returncode == -signal.SIGBUS, done.stderr


def test_a_bad_sector_is_an_error() -> None:
    arguments = [sys.executable, CHILD.with_name("bad_sector.py")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 2 and "cannot be tried here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
