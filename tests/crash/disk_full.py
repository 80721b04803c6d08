"""Fills a small disk by pylog and looks whether it kept its promises.  Root, Linux; see docs/durability.md.

python tests/crash/disk_full.py --fs tmpfs --fills 1000     4 MB of memory
python tests/crash/disk_full.py --fs ext4 --fills 200       16 MB on a loop device

Each fill: one or two processes append until the disk is full, one way or another.  The error says so and names a file,
nobody dies of SIGBUS, everything acknowledged can be read.  Then room is made, by a file that goes, by delete_records
or by delete_topics in the full state, and the same handles append again; or all are killed, the directory can be
opened read_only at least, and for writing when there is room.  Sometimes the disk is full from the start.

With --control a process tells of a record that it never sent: it must be missed.

Exit status: 0, all fills went well; 1, something was lost or wrong; 2, it cannot be tried here.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # children are forked: numpy's threads would not follow
sys.path.insert(0, str(Path(__file__).parent))  # python -P would not find the modules beside this one

import powercut_disk
from disk_full_child import TOPIC, Plan, WrongError, check, check_full, work
from powercut_disk import Disk, hide_mounts, libc

import pylog
from pylog import TopicPartition

DISK_BYTES = {"tmpfs": 4 << 20, "ext4": 16 << 20}
ROOM_BYTES = 700_000  # what the filler gives back: for records, new segments and the checkpoints of a close
ANSWER_SECONDS_MAX = 60


class Worker:
    """A forked process that runs disk_full_child.work."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(plan, number, theirs)
        theirs.close()

    def hear(self) -> tuple[str, dict[int, int], int]:
        """What it says next; WrongError when it died instead, or says nothing."""
        if not self.pipe.poll(ANSWER_SECONDS_MAX):
            self.end(signal.SIGKILL)
            raise WrongError("a process hangs")
        try:
            said: tuple[str, dict[int, int], int] = self.pipe.recv()
        except EOFError:
            status = self.end()
            raise WrongError(f"a process died of {status}") from None
        return said

    def end(self, how: int = 0) -> int:
        """Its exit status."""
        if self.pid == 0:
            return 0
        if how:
            os.kill(self.pid, how)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.pipe.close()
        return os.waitstatus_to_exitcode(status)


def _live(plan: Plan, number: int, pipe: Connection) -> None:
    status = 1
    try:
        work(plan, number, pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def make_plan(data: Path, chance: random.Random) -> Plan:
    """A way to fill the disk."""
    segment_bytes = chance.choice([20_000, 60_000, 1 << 30])
    rooms = ["filler", "kill", "topic", "filler", "kill"] + (["records"] * 3 if segment_bytes < 1 << 30 else [])
    return Plan(
        data=data,
        acks=chance.choice([1, "all"]),
        way=chance.choice(["send", "batch", "many"]),
        compression=chance.choice([None, None, "lz4", "gzip"]),
        segment_bytes=segment_bytes,
        value_bytes=chance.choice([100, 1000, 8000]),
        partitions=chance.choice([1, 2]),
        seed=chance.randrange(1 << 32),
        room=chance.choice(rooms),
    )


def ballast(path: Path, left_bytes: int) -> None:
    """Take all of the disk but so much, and ROOM_BYTES of it by a file of their own."""
    with open(path / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
    disk = os.statvfs(path)
    with open(path / "ballast", "wb") as file:
        wanted = disk.f_bavail * disk.f_bsize - left_bytes
        if wanted > 0:
            os.posix_fallocate(file.fileno(), 0, wanted)


def fill(path: Path, plan: Plan, chance: random.Random, *, control: bool) -> str:
    """One fill, in an empty file system; how it came to an end."""
    how: str = plan.room
    ballast(path, chance.randrange(100_000) if chance.random() < 0.2 else chance.randrange(700_000, 2_500_000))
    workers = [Worker(plan, number) for number in range(chance.choice([1, 2]))]
    try:
        _open(path, workers, chance)
        told = _until_full(workers)
        if control:
            told[0][1 << 40] = 1
        look_read_only(plan, told)
        starts = [0] * len(workers)
        if plan.room == "kill":
            for worker in workers:
                worker.end(signal.SIGKILL)
            look_read_only(plan, told)
            how = "opened in the full state" if open_full(plan) else "opened with room"
            (path / "filler").unlink(missing_ok=True)
        else:
            told, starts = _go_on(path, plan, workers)
        look_at_end(plan, told, starts)
    finally:
        for worker in workers:
            worker.end(signal.SIGKILL)
    return how


def _open(path: Path, workers: list[Worker], chance: random.Random) -> None:
    """Where the disk is full from the start, room is made until they can open."""
    rooms = [path / "filler", path / "ballast"]
    for worker in workers:
        had_room = False
        while worker.hear()[0] == "full at open":
            if had_room:
                raise WrongError("a process cannot open, though there is room")
            had_room = not rooms
            if rooms:
                rooms.pop(0).unlink(missing_ok=True)
            worker.pipe.send("try again")
    if len(rooms) < 2:
        (path / "ballast").unlink(missing_ok=True)
        ballast(path, chance.randrange(300_000))


def _until_full(workers: list[Worker]) -> list[dict[int, int]]:
    for worker in workers:
        worker.pipe.send("fill")
    return [worker.hear()[1] for worker in workers]


def _go_on(path: Path, plan: Plan, workers: list[Worker]) -> tuple[list[dict[int, int]], list[int]]:
    for worker in workers:
        worker.pipe.send("make room")
    made, _, starts = zip(*[worker.hear() for worker in workers], strict=True)
    if "no room" in made:
        (path / "filler").unlink(missing_ok=True)
    for worker, start in zip(workers, starts, strict=True):
        worker.pipe.send(start if plan.partitions > 1 else max(starts))
    ends = [worker.hear() for worker in workers]
    for worker in workers:
        if (status := worker.end()) != 0:
            raise WrongError(f"a process ended with {status}")
    if not (plan.data / ".kafka_cleanshutdown").exists():
        raise WrongError("the clean close left no mark")
    return [acknowledged for _, acknowledged, _ in ends], [start for _, _, start in ends]


def _names(plan: Plan, told: list[dict[int, int]]) -> Iterator[tuple[TopicPartition, dict[int, tuple[int, int]]]]:
    for number in range(plan.partitions):
        names: dict[int, tuple[int, int]] = {}
        for worker, acknowledged in enumerate(told):
            if worker % plan.partitions == number:
                names.update({offset: (worker, at) for offset, at in acknowledged.items()})
        yield TopicPartition(TOPIC, number), names


def look_read_only(plan: Plan, told: list[dict[int, int]]) -> None:
    """Whatever the disk's state, a reader gets what was acknowledged."""
    with pylog.open(plan.data, read_only=True) as log:
        for tp, names in _names(plan, told):
            check(log, plan, tp, names)


def open_full(plan: Plan) -> bool:
    """Who opens it for writing can, or is told that the disk is full; whether he can."""
    try:
        log = pylog.open(plan.data)
    except pylog.PylogError as error:
        check_full(error)
        return False
    try:
        log.admin.create_topic("more")
        log.producer().send("more", b"x").get()
    except pylog.PylogError as error:
        check_full(error)
    try:
        log.close()
    except pylog.PylogError as error:
        check_full(error)
    return True


def look_at_end(plan: Plan, told: list[dict[int, int]], starts: list[int]) -> None:
    """There is room: everything is as ever."""
    with pylog.open(plan.data) as log:
        for (tp, names), start in zip(_names(plan, told), starts + [0] * plan.partitions, strict=False):
            check(log, plan, tp, names, start)
        log.admin.create_topic("after", exist_ok=True)
        log.producer(acks="all").send("after", b"x").get()


@contextlib.contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """A small file system that only this process sees."""
    hide_mounts()
    if kind == "tmpfs":
        path = Path(tempfile.mkdtemp(prefix="pylog-full-"))
        if libc.mount(b"tmpfs", bytes(path), b"tmpfs", 0, b"size=%d" % DISK_BYTES[kind]) != 0:
            raise OSError("mounting a tmpfs failed")
        try:
            yield path
        finally:
            libc.umount2(bytes(path), 2)
            path.rmdir()
        return
    powercut_disk.IMAGE_BYTES[kind] = DISK_BYTES[kind]
    with Disk(kind) as disk:
        disk.mount()
        yield disk.path
        gc.collect()  # errors hold on to what they met


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="fills a small disk by pylog")
    parser.add_argument("--fs", choices=sorted(DISK_BYTES), default="tmpfs")
    parser.add_argument("--fills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--control", action="store_true")
    options = parser.parse_args()
    problem = "mounting needs root" if os.geteuid() != 0 else None
    if options.fs != "tmpfs":
        problem = powercut_disk.problem(options.fs)
    if problem is not None:
        sys.stderr.write(f"disk_full: cannot be tried here: {problem}\n")
        return 2
    print(f"seed {options.seed}", flush=True)
    begun = time.monotonic()
    rooms: dict[str, int] = {}
    with mounted(options.fs) as path:
        for number in range(options.fills):
            chance = random.Random(options.seed + number)
            plan = make_plan(path / "data", chance)
            try:
                how = fill(path, plan, chance, control=options.control)
            except (WrongError, pylog.PylogError) as error:
                traceback.print_exc()
                print(f"fill {number} (--seed {options.seed + number} --fills 1): {error}; {plan}", flush=True)
                return 1
            rooms[how] = rooms.get(how, 0) + 1
            for entry in path.iterdir():
                if entry.name == "lost+found":
                    continue
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    seconds = time.monotonic() - begun
    kinds = ", ".join(f"{count} {room}" for room, count in sorted(rooms.items()))
    print(f"{options.fs}: {options.fills} fills ({kinds}), {options.fills / seconds:.1f} a second: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
