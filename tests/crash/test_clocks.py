"""A wall clock that jumps: the rig of clocks.py as smoke, and its control.

PYLOG_CLOCK_SCRIPTS is the number of scripts; a release asks for a thousand.
"""

import os
from collections.abc import Callable
from typing import Any

SCRIPTS = os.environ.get("PYLOG_CLOCK_SCRIPTS", "20")


def test_a_clock_that_jumps_loses_nothing_rolls_little_and_holds_nobody_up(run_rig: Callable[..., Any]) -> None:
    done = run_rig("clocks.py", "--scripts", SCRIPTS)
    assert done.returncode == 0
    assert f"{SCRIPTS} scripts" in done.stdout


def test_the_rig_misses_a_record_that_is_not_there(run_rig: Callable[..., Any]) -> None:
    done = run_rig("clocks.py", "--scripts", "1", "--control")
    assert done.returncode == 1
    assert "were acknowledged" in done.stdout
