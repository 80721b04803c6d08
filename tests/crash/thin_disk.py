"""A disk that promises more room than there is: ext4 on an image that lies on a tmpfs too small for it.

What ext4 needs for itself, its journal included, has its room; so it stays mounted and sound while writes of data end
with EIO, as on a thin volume that has run full.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from powercut_disk import DIRECTORY, Disk, _check, libc

IMAGE_BYTES = 64 << 20
OWN_BYTES = 12 << 20  # of ext4 itself: tables at the beginning, then the journal
MS_REMOUNT = 1 << 5
MNT_DETACH = 2
MAKE = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4,location=8M", "-E", "lazy_itable_init=1,nodiscard")


class ThinDisk(Disk):
    """Has room for data_bytes of data until grow() is called."""

    def __init__(self, data_bytes: int) -> None:
        self.store = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY}{os.getpid()}-"))
        self.real_bytes = OWN_BYTES + data_bytes
        self._mount_store(0, self.real_bytes)
        super().__init__("ext4")

    def make(self) -> None:
        """An empty file system; what it needs for itself, and the room for data, is taken from the tmpfs."""
        os.close(self.image)
        self.image = os.open(self.store / "image", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self.image, IMAGE_BYTES)
        subprocess.run([*MAKE, f"/proc/{os.getpid()}/fd/{self.image}"], check=True, stdout=subprocess.DEVNULL)
        os.posix_fallocate(self.image, 0, self.real_bytes)

    def grow(self) -> None:
        """From here on there is room for all of it."""
        self._mount_store(MS_REMOUNT, 2 * IMAGE_BYTES)

    def _mount_store(self, flags: int, size: int) -> None:
        status = libc.mount(b"tmpfs", bytes(self.store), b"tmpfs", flags, b"size=%d" % size)
        _check(status, f"mounting a tmpfs of {size} bytes")

    def close(self) -> None:
        """Unmount, and forget the image."""
        try:
            super().close()
        finally:
            _check(libc.umount2(bytes(self.store), MNT_DETACH), "unmounting the tmpfs")
            self.store.rmdir()
