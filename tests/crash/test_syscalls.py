"""Smoke of the rig that kills and fails at every system call, and its control."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pylog

RIG = Path(__file__).with_name("syscalls.py")
ROOT = Path(pylog.__file__).parents[1]  # where the rig finds the pylog that is tested
WRONG, IMPOSSIBLE = 1, 2  # exit statuses of the rig


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(RIG), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode == IMPOSSIBLE and "cannot be tried here" in done.stderr:
        pytest.skip(done.stderr.strip())
    print(done.stdout, done.stderr)  # the seed is there
    return done


def test_a_kill_or_a_failure_at_any_system_call_loses_nothing_that_was_acknowledged() -> None:
    done = run("--sample", "1")
    assert done.returncode == 0
    assert all(f"\n{kind}: " in done.stdout for kind in ("kill", "EIO once", "EIO sticky", "ENOSPC sticky", "recovery"))


def test_control_acknowledgements_before_the_append_are_seen_as_loss() -> None:
    done = run("--control", "--kind", "kill", "--call", "pwrite64", "--sample", "12")
    assert done.returncode == WRONG
    assert "lost Told" in done.stdout
