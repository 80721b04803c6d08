"""A full disk: the rig of disk_full.py as smoke, its control, and what can be seen without chance.

PYLOG_FILLS is the number of fills on a tmpfs; a release asks for a thousand.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("disk_full.py")
FILLS = os.environ.get("PYLOG_FILLS", "20")
WRONG, IMPOSSIBLE = 1, 2  # exit statuses of the rig


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, RIG, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == IMPOSSIBLE and "cannot be tried here" in done.stderr:
        pytest.skip(done.stderr.strip())
    print(done.stdout, done.stderr)  # the seed is there
    return done


@pytest.mark.parametrize(("fs", "fills"), [("tmpfs", FILLS), ("ext4", "8")])
def test_a_full_disk_is_told_takes_nothing_and_is_written_to_again_when_there_is_room(fs: str, fills: str) -> None:
    done = run("--fs", fs, "--fills", fills)
    assert done.returncode == 0
    assert f"{fs}: {fills} fills" in done.stdout.splitlines()[-1]


def test_the_rig_sees_a_record_that_was_acknowledged_and_is_not_there() -> None:
    done = run("--fills", "1", "--control")
    assert done.returncode == WRONG
    assert "LOST: " in done.stdout
