"""A full disk: the rig of disk_full.py as smoke, its control, and what can be seen without chance.

PYLOG_FILLS is the number of fills on a tmpfs; a release asks for a thousand.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

FILLS = os.environ.get("PYLOG_FILLS", "20")
WRONG = 1  # the exit status


@pytest.mark.parametrize(("fs", "fills"), [("tmpfs", FILLS), ("ext4", "8")])
def test_a_full_disk_is_told_takes_nothing_and_is_written_to_again_when_there_is_room(
    run_rig: Callable[..., Any], fs: str, fills: str
) -> None:
    done = run_rig("disk_full.py", "--fs", fs, "--fills", fills)
    assert done.returncode == 0
    assert f"{fs}: {fills} fills" in done.stdout.splitlines()[-1]


def test_the_rig_sees_a_record_that_was_acknowledged_and_is_not_there(run_rig: Callable[..., Any]) -> None:
    done = run_rig("disk_full.py", "--fills", "1", "--control")
    assert done.returncode == WRONG
    assert "LOST: " in done.stdout
