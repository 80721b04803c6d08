"""Smoke of the rig in which fsync fails for real, and its controls; docs/durability.md names the full run."""

from collections.abc import Callable
from typing import Any

import pytest

LOST = 1  # the exit status


def test_what_recovery_believes_after_a_failed_fsync_is_on_the_disk(run_rig: Callable[..., Any]) -> None:
    done = run_rig("failed_fsync.py", "--runs", "5")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("5 failed fsyncs in ")


@pytest.mark.parametrize("control", ["cache", "forgotten"])
def test_the_rig_sees_the_loss_when_the_page_cache_is_believed(run_rig: Callable[..., Any], control: str) -> None:
    done = run_rig("failed_fsync.py", "--runs", "20", "--control", control)
    assert done.returncode == LOST
    assert "LOST: " in done.stdout
