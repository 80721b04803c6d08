"""Consumer groups under fire: the rig of groups.py as smoke, with its controls."""

from collections.abc import Callable
from typing import Any

import pytest


def test_members_that_are_killed_lose_nothing_and_are_followed_within_a_second(run_rig: Callable[..., Any]) -> None:
    done = run_rig("groups.py", "--seconds", "30")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("control", "told"), [("commit-first", "given to nobody"), ("no-locks", "came to own")])
def test_members_that_break_the_rules_are_caught(run_rig: Callable[..., Any], control: str, told: str) -> None:
    done = run_rig("groups.py", "--seconds", "8", "--control", control)
    assert done.returncode == 1, done.stdout + done.stderr
    assert told in done.stdout
