"""Fixtures for the smokes of the rigs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pylog

IMPOSSIBLE = 2  # exit status of a rig that has said why
RunRig = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_rig() -> RunRig:
    """Runs a rig of this folder, by its name, with options; skips the test where the rig says that it cannot run."""

    def run(name: str, *options: str, seconds_max: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(Path(__file__).with_name(name)), *options]
        environment = {**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])}  # the pylog that is tested
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds_max, check=False, env=environment
        )
        if done.returncode == IMPOSSIBLE and "cannot be tried here" in done.stderr:
            pytest.skip(done.stderr.strip())
        print(done.stdout, done.stderr)  # the seed is there
        return done

    return run
