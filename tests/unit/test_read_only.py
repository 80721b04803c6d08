"""What cannot be written: a mount that is read-only, and files whose permission bits say no."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)

WRITE = """
import errno, sys, pylog
try:
    pylog.open({path!r}).close()
except pylog.StorageError as error:
    assert error.errno in (errno.EROFS, errno.EACCES), error
    assert "read_only=True" in str(error), error
    assert error.filename, error
    print("refused", error.errno)
"""
READ = """
import pylog
with pylog.open({path!r}, read_only=True) as log:
    print([record.value for record in log.read("orders")])
    print(log.consumer("orders").poll(timeout_ms=10)[("orders", 0)][-1].offset)
    print(log.admin.describe_topics()[0]["partitions"][0]["end_offset"])
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with records, and others that were not closed cleanly behind them."""
    path = tmp_path / "data"
    with pylog.open(path) as log:
        for value in (b"1", b"2", b"3"):
            log.producer().send("orders", value).get()
    return path


def leave_a_torn_tail(path: Path) -> None:
    (path / ".kafka_cleanshutdown").unlink()
    with open(path / "orders-0" / ("0" * 20 + ".log"), "ab") as file:
        file.write(b"half a batch")


@contextlib.contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    if os.geteuid() != 0 or libc.mount(bytes(path), bytes(path), None, MS_BIND, None) != 0:
        pytest.skip("mounting needs root")
    try:
        assert libc.mount(None, bytes(path), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None) == 0
        yield
    finally:
        libc.umount2(bytes(path), 2)


def files(path: Path) -> dict[Path, Any]:
    return {file: (file.lstat().st_mtime_ns, file.lstat().st_size) for file in [path, *path.rglob("*")]}


def check_refused_and_read(path: Path, run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    before = files(path)
    refused = run(WRITE.format(path=str(path)))
    assert (refused.returncode, refused.stdout[:7]) == (0, "refused"), refused.stderr
    read = run(READ.format(path=str(path)))
    assert read.stdout.split("\n")[:3] == ["[b'1', b'2', b'3']", "2", "3"], read.stderr
    assert files(path) == before


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("locked_before", [True, False])
def test_a_read_only_mount_is_read_and_writing_is_refused_with_advice(
    clean: bool, locked_before: bool, directory: Path, run_script: Any
) -> None:
    if not clean:
        leave_a_torn_tail(directory)
    if not locked_before:  # a copy, say, without what only writers need
        for name in (".lock", "pylog.shm", "pylog.topics"):
            (directory / name).unlink(missing_ok=True)
    with mounted_read_only(directory):
        check_refused_and_read(directory, run_script)


@pytest.mark.parametrize("what", ["everything", "the directory", "the partition", "the files", "the lock"])
def test_permission_bits_that_say_no_are_respected_and_told(
    what: str, directory: Path, tmp_path: Path, run_script: Any
) -> None:
    if os.geteuid() != 0:
        pytest.skip("to become somebody else needs root")
    leave_a_torn_tail(directory)
    for place in [directory, *directory.rglob("*")]:
        os.chown(place, NOBODY, NOBODY)
    partition = directory / "orders-0"
    inner = [*partition.iterdir()]
    closed = {
        "everything": [directory, *directory.iterdir(), *inner],
        "the directory": [directory, directory / ".lock"],
        "the partition": [partition, *inner],
        "the files": inner,
        "the lock": [directory / ".lock"],
    }[what]
    for place in closed:
        place.chmod(place.stat().st_mode & ~0o222)
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)

    def as_nobody(source: str) -> subprocess.CompletedProcess[str]:
        # numpy and the rest are loaded first: what root alone may read is not what is tested.
        done: subprocess.CompletedProcess[str] = run_script(
            f"import os, pylog\nos.setgroups([])\nos.setgid({NOBODY})\nos.setuid({NOBODY})\n" + source
        )
        return done

    if what in ("the partition", "the files"):
        # What its owner may write of the directory is written; only the partition cannot be recovered.
        refused = as_nobody(WRITE.format(path=str(directory)))
        assert refused.stdout.startswith("refused 13"), refused.stderr
        read = as_nobody(READ.format(path=str(directory)))
        assert read.stdout.split("\n")[0] == "[b'1', b'2', b'3']", read.stderr
    else:
        check_refused_and_read(directory, as_nobody)


def test_what_cannot_be_read_either_is_named(directory: Path, run_script: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("to become somebody else needs root")
    (directory / "orders-0" / ("0" * 20 + ".log")).chmod(0)
    for parent in [directory, *directory.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    source = f"""
        import os, pylog
        os.setgroups([]); os.setuid({NOBODY})
        with pylog.open({str(directory)!r}, read_only=True) as log:
            try:
                list(log.read("orders"))
            except pylog.StorageError as error:
                print(error.errno, error.filename)
    """
    done = run_script(source)
    assert done.stdout.split() == ["13", f"orders-0/{'0' * 20}.log"], done.stderr


def test_what_has_become_read_only_while_it_is_open_is_told_and_read_on(directory: Path) -> None:
    with contextlib.suppress(pylog.StorageError), pylog.open(directory) as log:
        log.producer().send("orders", b"4").get()
        with mounted_read_only(directory):  # by path only: what is open stays as it is
            with pytest.raises(pylog.StorageError, match="Read-only file system"):
                log.admin.create_topic("more")
            assert [record.value for record in log.read("orders")] == [b"1", b"2", b"3", b"4"]
            with pytest.raises(pylog.StorageError, match="Read-only file system"):
                log.admin.delete_records({TopicPartition("orders", 0): 1})
        log.admin.create_topic("more")
        assert log.producer().send("orders", b"5").get().offset == 4
