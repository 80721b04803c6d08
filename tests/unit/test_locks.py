"""Locks on bytes of a file: they belong to the handle, and die with it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pylog._locks import LockFile

FAR = 1 << 45


def test_two_handles_keep_each_other_out_byte_by_byte(tmp_path: Path) -> None:
    one, two = LockFile(tmp_path / "f"), LockFile(tmp_path / "f")
    assert one.try_lock(0)
    assert one.try_lock(FAR)
    assert not two.try_lock(FAR)
    assert two.try_lock(FAR + 1)
    assert two.is_held(0)
    assert not one.is_held(0)  # by nobody else
    one.unlock(FAR)
    assert two.try_lock(FAR)
    one.close()
    assert two.try_lock(0)
    two.close()
    assert (tmp_path / "f").stat().st_size == 0


def test_who_waits_gets_the_lock_when_it_comes_free(tmp_path: Path) -> None:
    one, two = LockFile(tmp_path / "f"), LockFile(tmp_path / "f")
    one.lock(5)
    got = threading.Event()
    waiting = threading.Thread(target=lambda: (two.lock(5), got.set()))
    waiting.start()
    assert not got.wait(0.05)
    one.unlock(5)
    assert got.wait(20)
    waiting.join()
    one.close()
    two.close()


def test_a_dropped_handle_gives_its_locks_back(tmp_path: Path) -> None:
    one, two = LockFile(tmp_path / "f"), LockFile(tmp_path / "f")
    one.lock(5)
    del one
    assert two.try_lock(5)
    two.close()


def test_a_killed_process_gives_its_locks_back(tmp_path: Path) -> None:
    source = (
        "import sys, pathlib\nfrom pylog._locks import LockFile\n"
        "file = LockFile(pathlib.Path(sys.argv[1])); file.lock(7); print('has it', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / "f")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"has it\n"
    mine = LockFile(tmp_path / "f")
    assert mine.is_held(7)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert mine.try_lock(7)
    mine.close()
    other.communicate()


def test_a_forked_child_holds_nothing(tmp_path: Path, in_child: Callable[..., Any]) -> None:
    one, two = LockFile(tmp_path / "f"), LockFile(tmp_path / "f")
    one.lock(7)

    def ask() -> bool:
        one.mark_forked()
        third = LockFile(tmp_path / "f")
        return third.is_held(7)

    assert in_child(ask) is True
    one.close()
    assert two.try_lock(7)
    two.close()


def test_a_removed_file_is_told_from_the_one_that_took_its_place(tmp_path: Path) -> None:
    one = LockFile(tmp_path / "f")
    assert one.is_current()
    (tmp_path / "f").unlink()
    assert not one.is_current()
    two = LockFile(tmp_path / "f")
    assert two.is_current()
    assert not one.is_current()
    one.close()
    two.close()
