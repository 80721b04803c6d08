"""Smoke of the rig that kills and fails at every system call, and its control."""

from collections.abc import Callable
from typing import Any

WRONG = 1  # the exit status


def test_a_kill_or_a_failure_at_any_system_call_loses_nothing_that_was_acknowledged(
    run_rig: Callable[..., Any],
) -> None:
    done = run_rig("syscalls.py", "--sample", "1")
    assert done.returncode == 0
    assert all(f"\n{kind}: " in done.stdout for kind in ("kill", "EIO once", "EIO sticky", "ENOSPC sticky", "recovery"))


def test_control_acknowledgements_before_the_append_are_seen_as_loss(run_rig: Callable[..., Any]) -> None:
    done = run_rig("syscalls.py", "--control", "--kind", "kill", "--call", "pwrite64", "--sample", "12")
    assert done.returncode == WRONG
    assert "lost Told" in done.stdout
