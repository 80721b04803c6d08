"""Consumer groups under fire: the rig of groups.py as smoke, with its controls."""

import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("groups.py")


def run_rig(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RIG, *options], capture_output=True, text=True, timeout=240, check=False)


def test_members_that_are_killed_lose_nothing_and_are_followed_within_a_second() -> None:
    done = run_rig("--seconds", "30")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("control", "told"), [("commit-first", "given to nobody"), ("no-locks", "came to own")])
def test_members_that_break_the_rules_are_caught(control: str, told: str) -> None:
    done = run_rig("--seconds", "8", "--control", control)
    assert done.returncode == 1, done.stdout + done.stderr
    assert told in done.stdout
