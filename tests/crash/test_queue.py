"""The rig of queue_rig.py as smoke: consumers are killed, and nothing is lost, settled twice, or keeps its space."""

import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("queue_rig.py")


def run_rig(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RIG, *options], capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize(
    "options",
    [
        ("--messages", "60000", "--kill-every", "0"),
        ("--messages", "150000", "--kill-every", "0.5"),
        ("--messages", "50000", "--kill-every", "2", "--kill-all", "--batch", "20"),
        ("--messages", "20000", "--kill-every", "1", "--order", "key", "--batch", "20"),
        ("--messages", "10000", "--kill-every", "0.7", "--acks", "all", "--batch", "5"),
    ],
    ids=["nobody", "one", "all", "keys", "durable"],
)
def test_messages_are_settled_once_whoever_is_killed(options: tuple[str, ...]) -> None:
    done = run_rig(*options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_consumers_that_ack_before_they_look_are_caught() -> None:
    done = run_rig("--messages", "40000", "--kill-every", "0.5", "--control")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "was lost" in done.stdout
