"""Smoke of the power-cut rig, and its controls: short runs of powercut.py; docs/durability.md names the full ones."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RIG = Path(__file__).with_name("powercut.py")
LOST = 1  # the exit status


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(RIG), *arguments)


@pytest.mark.parametrize(
    ("fs", "variant", "cuts"),
    [("ext4", "all", 60), ("ext4", "change", 30), ("ext4", "recovery", 30), ("ext4", "calls", 30), ("xfs", "all", 20)],
)
def test_no_power_cut_takes_a_record_that_was_acknowledged_with_acks_all(
    run_rig: Callable[..., Any], fs: str, variant: str, cuts: int
) -> None:
    done = run_rig("powercut.py", "--fs", fs, "--variant", variant, "--cuts", str(cuts))
    assert done.returncode == 0
    assert f"{variant}: {cuts} cuts" in done.stdout.splitlines()[-1]


def test_a_power_cut_takes_no_record_that_is_older_than_flush_ms(run_rig: Callable[..., Any]) -> None:
    done = run_rig("powercut.py", "--variant", "window", "--cuts", "12", "--flush-ms", "20")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("variant", "skip_sync"),
    [("all", 50), ("change", 50), ("window", 1)],
)
def test_the_rig_sees_the_loss_when_fsyncs_are_swallowed(
    run_rig: Callable[..., Any], variant: str, skip_sync: int
) -> None:
    done = run_rig("powercut.py", "--variant", variant, "--cuts", "400", "--skip-sync", str(skip_sync))
    assert done.returncode == LOST
    assert "LOST: " in done.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_rig_that_is_stopped_leaves_no_mount_and_no_loop_device(
    run_rig: Callable[..., Any], how: signal.Signals
) -> None:
    assert run_rig("powercut.py", "--cuts", "1").returncode == 0  # skips where it cannot be tried
    with subprocess.Popen(command("--cuts", "100000"), stdout=subprocess.PIPE, text=True) as rig:
        wait_until(lambda: mounts_of(rig.pid) and loops_of(rig.pid), "the rig to mount")
        rig.send_signal(how)
        rig.communicate(timeout=60)
    wait_until(lambda: not loops_of(rig.pid), "the loop device to go")
    assert not mounts_of(os.getpid())
    if how == signal.SIGINT:
        assert not list(Path(tempfile.gettempdir()).glob(f"pylog-powercut-{rig.pid}-*"))


def mounts_of(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if "pylog-powercut-" in line]


def loops_of(pid: int) -> list[Path]:
    """The loop devices over that rig's image."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if f"pylog power cuts of {pid} " in path.read_text():
                found.append(path)
    return found


def wait_until(holds: Callable[[], object], what: str) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, f"waited 20 s for {what}"
        time.sleep(0.001)
