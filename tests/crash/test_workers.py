"""A smoke of the rig for key-ordered workers; its full counts are the command's defaults."""

import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("workers_rig.py")


def run_rig(*options: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, str(RIG), "--records=20000", "--keys=500", "--kills=3", "--commit-seconds=0.02", *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


@pytest.mark.parametrize("members", [1, 2])
def test_killed_workers_lose_nothing_keep_the_order_and_repeat_only_what_was_not_committed(members: int) -> None:
    done = run_rig(f"--members={members}")
    assert done.returncode == 0
    assert "3 killed" in done.stdout


@pytest.mark.parametrize(
    ("control", "complaint"),
    [
        ("unordered", "completed after a later one"),
        ("read-is-done", "records were lost"),
        ("forgetful", "handled again although"),
    ],
)
def test_control_a_planted_defect_is_found(control: str, complaint: str) -> None:
    done = run_rig(f"--control={control}")
    assert done.returncode == 1
    assert complaint in done.stdout
