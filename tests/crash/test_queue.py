"""The rig of queue_rig.py as smoke: consumers are killed, and nothing is lost, settled twice, or keeps its space."""

from collections.abc import Callable
from typing import Any

import pytest


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
def test_messages_are_settled_once_whoever_is_killed(run_rig: Callable[..., Any], options: tuple[str, ...]) -> None:
    done = run_rig("queue_rig.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_consumers_that_ack_before_they_look_are_caught(run_rig: Callable[..., Any]) -> None:
    done = run_rig("queue_rig.py", "--messages", "40000", "--kill-every", "0.5", "--control")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "was lost" in done.stdout
