"""Smoke of the rig in which fsync fails for real, and its controls; docs/durability.md names the full run."""

import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("failed_fsync.py")
LOST, IMPOSSIBLE = 1, 2  # exit statuses of the rig


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, str(RIG), *arguments], capture_output=True, text=True, timeout=200)
    if done.returncode == IMPOSSIBLE and "cannot be tried here" in done.stderr:
        pytest.skip(done.stderr.strip())
    print(done.stdout, done.stderr)  # the seed is there
    return done


def test_what_recovery_believes_after_a_failed_fsync_is_on_the_disk() -> None:
    done = run("--runs", "5")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("5 failed fsyncs in ")


@pytest.mark.parametrize("control", ["cache", "forgotten"])
def test_the_rig_sees_the_loss_when_the_page_cache_is_believed(control: str) -> None:
    done = run("--runs", "20", "--control", control)
    assert done.returncode == LOST
    assert "LOST: " in done.stdout
