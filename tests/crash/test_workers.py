"""A smoke of the rig for key-ordered workers; its full counts are the command's defaults."""

from collections.abc import Callable
from typing import Any

import pytest

SMOKE = ("--records=20000", "--keys=500", "--kills=3", "--commit-seconds=0.02")


@pytest.mark.parametrize("members", [1, 2])
def test_killed_workers_lose_nothing_keep_the_order_and_repeat_only_what_was_not_committed(
    run_rig: Callable[..., Any], members: int
) -> None:
    done = run_rig("workers_rig.py", *SMOKE, f"--members={members}")
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
def test_control_a_planted_defect_is_found(run_rig: Callable[..., Any], control: str, complaint: str) -> None:
    done = run_rig("workers_rig.py", *SMOKE, f"--control={control}")
    assert done.returncode == 1
    assert complaint in done.stdout
