"""A file system whose power can be cut: an image in memory, a loop device over it, a mount that only this process sees.

The image is a memfd, the loop device clears itself when its last user is gone, and the mount lives in a mount namespace
of its own: however this process ends, SIGKILL included, nothing is left behind but an empty directory, which the next
run removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
JOURNAL_LOST = 2  # nothing that is not on the disk yet gets there
JOURNAL_WRITTEN = 1  # the journal gets there, data that was not flushed does not: sizes and names without their bytes

DIRECTORY = "pylog-powercut-"

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_AUTOCLEAR = 4
# struct loop_config: fd, block size, struct loop_info64 (its lo_flags among paddings), reserved words
LOOP_CONFIG = struct.Struct("=II 5Q 3I I 64s 64s 32s 2Q 8Q")

CLONE_NEWNS = 0x00020000
MS_NOATIME, MS_REC, MS_PRIVATE = 1 << 10, 1 << 14, 1 << 18

MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
}
IMAGE_BYTES = {"ext4": 64 << 20, "xfs": 300 << 20}  # mkfs.xfs makes no smaller one

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def problem(kind: str) -> str | None:
    """Why power cuts on this kind of file system cannot be tried here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(MAKE[kind][0]) is None:
        return f"{MAKE[kind][0]} is not installed"
    try:
        fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, LOOP_CTL_GET_FREE)
        finally:
            os.close(fd)
    except OSError as error:
        return f"no loop devices: {error}"
    return None


def _check(status: int, what: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def hide_mounts() -> None:
    """Give this process a mount namespace of its own."""
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making / private")


class Disk:
    """One file system.  `with Disk("ext4") as disk:`; then mount, cut, unmount, mount, ..."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.image = os.memfd_create(f"pylog power cuts of {os.getpid()}", os.MFD_CLOEXEC)
        _remove_leavings()
        self.path = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY}{os.getpid()}-"))
        self.mount_fd = -1
        try:
            self.make()
        except BaseException:
            self.close()
            raise

    def make(self) -> None:
        """An empty file system in place of what is there.  Not while it is mounted."""
        os.ftruncate(self.image, 0)
        os.ftruncate(self.image, IMAGE_BYTES[self.kind])
        # A path through our own /proc: the image has no name.
        subprocess.run(
            [*MAKE[self.kind], f"/proc/{os.getpid()}/fd/{self.image}"], check=True, stdout=subprocess.DEVNULL
        )

    def save(self) -> int:
        """A copy of the image as it is now, for restore: a file descriptor, to be closed by the caller."""
        copy = os.memfd_create("pylog power cuts, saved", os.MFD_CLOEXEC)
        _copy(self.image, copy)
        return copy

    def restore(self, saved: int) -> None:
        """The image as it was saved.  Not while it is mounted."""
        os.ftruncate(self.image, 0)
        _copy(saved, self.image)

    def mount(self) -> None:
        """Mount by a loop device that was not used before: no cache of it can know what the image does not."""
        loop = self._loop_device()
        try:
            device = str(Path(f"/proc/self/fd/{loop}").readlink())
            status = libc.mount(device.encode(), bytes(self.path), self.kind.encode(), MS_NOATIME, None)
            _check(status, f"mounting {self.kind} by {device}")
        finally:
            os.close(loop)
        self.mount_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _loop_device(self) -> int:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        config = LOOP_CONFIG.pack(self.image, 0, *[0] * 5, *[0] * 3, LOOP_AUTOCLEAR, b"", b"", b"", *[0] * 2, *[0] * 8)
        try:
            for _ in range(1000):
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                fd = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(fd, LOOP_CONFIGURE, config)
                except OSError as error:
                    os.close(fd)
                    if error.errno != errno.EBUSY:
                        raise
                    time.sleep(0.001)  # somebody else was faster, or the last one is still being cleared
                else:
                    return fd
        finally:
            os.close(control)
        raise OSError(errno.EBUSY, "no free loop device was to be had")

    def cut(self, how: int = JOURNAL_LOST) -> None:
        """The power goes: every later write to the device fails."""
        fcntl.ioctl(self.mount_fd, SHUTDOWN, struct.pack("I", how))

    def unmount(self) -> None:
        """Let go of the file system; nobody may have a file of it open.  Nothing if it is not mounted."""
        if self.mount_fd >= 0:
            os.close(self.mount_fd)
            self.mount_fd = -1
        for _ in range(500):
            # EINVAL: it is not mounted.  An interruption may have come between the mount and mount_fd: always try.
            if libc.umount2(bytes(self.path), 0) == 0 or ctypes.get_errno() == errno.EINVAL:
                return
            if ctypes.get_errno() != errno.EBUSY:
                break
            time.sleep(0.01)  # a killed process may still be letting go of its files
        _check(-1, f"unmounting {self.path}")

    def close(self) -> None:
        """Unmount and forget the image."""
        try:
            self.unmount()
        finally:
            os.close(self.image)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove_leavings() -> None:
    """Empty directories of runs that were killed.  One of a living run is where it has mounted: not to be touched."""
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY}*-*"):
        pid = path.name.removeprefix(DIRECTORY).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                path.rmdir()


def _copy(source: int, target: int) -> None:
    """Copy a sparse file's data, and its length."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(target, os.pread(source, min(end - at, 1 << 20), at), at)
