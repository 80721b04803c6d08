"""python bad_sector.py: reads a log of which one segment's end cannot be read from the disk: EIO, by a shorter image.

Status 2 where that cannot be tried here (it takes root, and loop devices).
"""

import fcntl
import gc
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import pylog

sys.path.insert(0, str(Path(__file__).parent))  # python -P would not find the modules beside this one

import cut_child
from cut_child import RECORDS, ZERO, Scene, value
from powercut_disk import Disk, hide_mounts, problem

FIBMAP = 1
COPIES = 16
GOOD_BYTES = 40_960


def place_of(file: Path, position: int) -> int:
    """Where on the disk a byte of the file lies."""
    block_bytes = os.statvfs(file).f_bsize
    with file.open("rb") as opened:
        answer = fcntl.ioctl(opened, FIBMAP, struct.pack("i", position // block_bytes))
    return int(struct.unpack("i", answer)[0]) * block_bytes


def fill(disk: Disk) -> Scene:
    """A log on the disk, the second segment's blocks behind all others; nothing of it is in memory."""
    with tempfile.TemporaryDirectory() as scratch:
        scene = Scene(Path(scratch))
        scene.log.close()
        victim = scene.victim
        disk.mount()
        target = disk.path / "data"
        shutil.copytree(scratch, target, ignore=lambda _, names: [name for name in names if name == victim.name])
        os.sync()
        scene.victim = target / "orders-0" / victim.name
        # The file system chooses where a file lies: of many copies, the one that lies farthest back.
        copies = [disk.path / f"copy-{i}" / victim.name for i in range(COPIES)]
        for copy in copies:
            copy.parent.mkdir()
            shutil.copy(victim, copy)
        os.sync()
        last = max(copies, key=lambda copy: place_of(copy, 0))
        assert place_of(last, 0) > max(place_of(file, 0) for file in target.glob("*/*"))
        last.rename(scene.victim)
    disk.unmount()
    disk.mount()
    return scene


def read(scene: Scene) -> None:
    """Everything that can be read is read; what cannot is an error that says so."""
    # read_only: a write behind the image's end would fill it up with zeros, which can be read.
    with pylog.open(scene.victim.parent.parent, read_only=True) as log:
        got: list[bytes] = []
        for _ in range(2):
            try:
                for record in log.read("orders", 0, start=len(got)):
                    got.append(record.value)
            except pylog.StorageError as error:
                assert scene.victim.name in str(error), error
                assert "Input/output error" in str(error), error
            else:
                raise AssertionError("the loss went unseen")
        assert scene.bases[1] < cut_child.check_read(got) < scene.bases[2]
        rest = [record.value for record in log.read("orders", 0, start=scene.bases[2])]
        assert cut_child.check_read(rest, scene.bases[2]) == RECORDS
        with log.consumer() as consumer:
            found = consumer.offsets_for_times({ZERO: cut_child.T0 + scene.bases[2] + 5})[ZERO]
            assert found is not None
            assert found.offset == scene.bases[2] + 5


def read_all(scene: Scene) -> None:
    """There is no loss any more."""
    with pylog.open(scene.victim.parent.parent) as log:
        assert [record.value for record in log.read("orders")] == [value(i) for i in range(RECORDS)]


def main() -> int:
    """Fill, break, read, mend, read."""
    if why := problem("ext4"):
        sys.stderr.write(f"cannot be tried here: {why}\n")
        return 2
    hide_mounts()
    with Disk("ext4") as disk:
        scene = fill(disk)
        whole = disk.save()
        os.ftruncate(disk.image, place_of(scene.victim, GOOD_BYTES))
        read(scene)
        disk.restore(whole)
        read_all(scene)
        gc.collect()  # mappings that a traceback held would keep the disk busy
    sys.stdout.write("done\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
