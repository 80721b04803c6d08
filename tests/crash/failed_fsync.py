"""Lets fsync fail for real, and looks whether pylog kept its promises.  Root, Linux; see docs/durability.md.

    python tests/crash/failed_fsync.py [--runs 100] [--seed N] [--control cache|forgotten]

Each run: two processes send with acks="all" to a partition on a disk that has less room than it says (thin_disk.py),
until both are told of an error.  They reopen, close or are killed.  Then there is room, the directory is opened anew
and checked, more is sent, the power is cut, and what the disk has is held against what recovery believed.

--control cache: nothing is recovered; the page cache alone is believed.  --control forgotten: pylog.shm, which says
that the partition is poisoned, is removed before.  Both must end in a loss, or this rig could not see one.

Exit status: 0, nothing lost; 1, something was lost; 2, it cannot be tried here; 3, anything else went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))  # python -P would not find the modules beside this one

import powercut_disk
from powercut_model import LossError
from thin_disk import ThinDisk

import pylog
from pylog import TopicPartition

TOPIC = "orders"
PLACE = TopicPartition(TOPIC, 0)
SEGMENT_BYTES = 1 << 20
SECONDS_MAX = 60.0
LATER = 2  # the number of a writer who comes after recovery


def value_of(seed: int, writer: int, number: int) -> bytes:
    """What a writer sends: nothing that could be taken for another record's, or for an older state of a block."""
    chooser = random.Random(f"{seed} {writer} {number}")
    return b"%d:%d:" % (writer, number) + chooser.randbytes(chooser.randrange(1000, 20000))


# -- the processes that are started


def tell(**story: Any) -> None:
    """A line of this process's story, in the file before anything else is done."""
    os.write(1, json.dumps(story).encode() + b"\n")


def asked() -> str:
    """What the rig wants next."""
    return sys.stdin.readline().strip()


def open_log(path: Path) -> pylog.Log:
    """Open it as all processes of the rig do."""
    return pylog.open(path, flush_ms=None, segment_bytes=SEGMENT_BYTES)


def send(log: pylog.Log, seed: int, writer: int, count: int | None) -> None:
    """Send, and tell each acknowledgement, `count` times or until an error ends it."""
    producer = log.producer(acks="all")
    number = 0
    while count is None or number < count:
        offset = producer.send(TOPIC, value_of(seed, writer, number), partition=0).get().offset
        tell(writer=writer, number=number, offset=offset)
        number += 1


def failure_of(action: Callable[..., object], *arguments: object) -> str | None:
    """What went wrong with it, if it was pylog's error."""
    try:
        action(*arguments)
    except pylog.StorageError as error:
        return f"{error}"
    return None


def write(path: Path, seed: int, writer: int) -> None:
    """Send until it fails; then do as asked."""
    log = open_log(path)
    log.admin.create_topic(TOPIC, exist_ok=True)
    failed = failure_of(send, log, seed, writer, None)
    tell(failed=failed, flushed=log.flushed_offsets([PLACE])[PLACE])
    while (command := asked()) != "close":
        failure_of(log.close)
        log = open_log(path)
        if command == "reopen":
            tell(refused=failure_of(send, log, seed, writer, 1))
    tell(closed=failure_of(log.close))


def check(path: Path, seed: int) -> None:
    """Open the directory, tell what is there, and send more."""
    try:
        log = open_log(path)
    except pylog.StorageError as error:
        tell(not_opened=str(error))
        return
    for record in log.read(TOPIC, 0):
        writer, number, _ = record.value.split(b":", 2)
        whole = record.value == value_of(seed, int(writer), int(number))
        tell(there=record.offset, writer=int(writer), number=int(number), whole=whole)
    send(log, seed, LATER, 5)
    tell(checked=log.flushed_offsets([PLACE])[PLACE])
    asked()


class Child:
    """A process of this file, and the file that it tells its story in."""

    def __init__(self, *arguments: object) -> None:
        self.story: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.told: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)], stdin=subprocess.PIPE, stdout=self.story
        )

    def ask(self, command: str) -> None:
        """Tell it what to do next."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, *keys: str) -> dict[str, Any]:
        """The line of its story that has one of the keys."""
        end = time.monotonic() + SECONDS_MAX
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            data = os.pread(self.story.fileno(), 1 << 30, 0)
            self.told = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
            for line in self.told:
                if any(key in line for key in keys):
                    return line
            if ended:
                break
            time.sleep(0.01)
        raise RuntimeError(f"a child told nothing of {keys}: exit status {self.process.poll()}")

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()
        self.story.close()


# -- the rig


@dataclass
class Rig:
    """What was done so far."""

    seed: int
    control: str | None
    runs: int = 0
    acknowledged: int = 0
    kept: int = 0
    refused: int = 0

    def run(self) -> None:
        """One disk that fails, and all that follows."""
        self.runs += 1
        chooser = random.Random(f"{self.seed} {self.runs}")
        children: list[Child] = []
        with ThinDisk(chooser.randrange(3 << 20, 9 << 20)) as disk:
            disk.mount()
            try:
                _Story(self, disk, chooser, children).play()
            finally:
                for child in children:
                    child.end()
                disk.unmount()


class _Story:
    """One run."""

    def __init__(self, rig: Rig, disk: ThinDisk, chooser: random.Random, children: list[Child]) -> None:
        self.rig, self.disk, self.chooser, self.children = rig, disk, chooser, children
        self.path = disk.path / "data"
        self.seed = chooser.getrandbits(32)
        self.acknowledged: dict[int, tuple[int, int]] = {}

    def start(self, role: str, *arguments: object) -> Child:
        child = Child("--role", role, "--path", self.path, "--seed", self.seed, *arguments)
        self.children.append(child)
        return child

    def play(self) -> None:
        self.fail()
        if self.chooser.random() < 0.5:
            self.open_without_room()
        self.disk.grow()
        if self.rig.control == "cache":
            # The fsync that follows a failed one.
            for file in self.path.glob(f"{TOPIC}-0/*.log"):
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            self.cut()
            return
        if self.rig.control == "forgotten":
            (self.path / "pylog.shm").unlink()
        believed = self.look()
        self.cut()
        found = self.look()
        for offset, ident in believed.items():
            if found.get(offset) != ident:
                raise LossError(f"offset {offset}: recovery believed {ident}, the disk has {found.get(offset)}")
        self.rig.acknowledged += len(self.acknowledged)

    def note_acknowledged(self, child: Child) -> None:
        for line in child.told:
            if "offset" in line:
                self.acknowledged[line["offset"]] = (line["writer"], line["number"])

    def fail(self) -> None:
        """Two writers, until both are told of the failure; then they go, each in its way."""
        writers = [self.start("write", "--writer", writer) for writer in range(2)]
        ends = [writer.wait_for("failed") for writer in writers]
        for writer, end in zip(writers, ends, strict=True):
            self.note_acknowledged(writer)
            if end["failed"] is None:
                raise RuntimeError("no error was raised")
        last = max(self.acknowledged, default=-1)
        if last >= max(end["flushed"] for end in ends):
            raise LossError(f"offset {last} was acknowledged, and flushed is what lies below {ends}")
        if self.chooser.random() < 0.5:  # the other one still has the directory open
            writers[0].ask("reopen")
            refused = writers[0].wait_for("refused")["refused"]
            if "until every process has closed" not in (refused or ""):
                raise RuntimeError(f"who came back was not told what must be done: {refused}")
        for writer in writers:
            if self.chooser.random() < 0.3:
                writer.process.kill()
                writer.process.wait()
            else:
                writer.ask("close")
                writer.wait_for("closed")
        if (self.path / ".kafka_cleanshutdown").exists():
            raise LossError("the directory looks as if it had been closed cleanly")

    def open_without_room(self) -> None:
        """What recovery writes anew meets the same disk: it must fail, or else be as good as any other."""
        child = self.start("check")
        if "not_opened" in child.wait_for("not_opened", "checked"):
            self.rig.refused += 1
        else:
            self.note_acknowledged(child)
        child.end()
        self.children.remove(child)

    def look(self) -> dict[int, tuple[int, int]]:
        """Open the directory; all that was acknowledged must be there.  All records, by offset."""
        child = self.start("check")
        line = child.wait_for("not_opened", "checked")
        if "not_opened" in line:
            raise RuntimeError(f"with room there is an error still: {line['not_opened']}")
        records = {told["there"]: (told["writer"], told["number"]) for told in child.told if "there" in told}
        if not all(told["whole"] for told in child.told if "there" in told) or list(records) != [*range(len(records))]:
            raise LossError("records are not whole, or have gaps")
        for offset, ident in self.acknowledged.items():
            if records.get(offset) != ident:
                raise LossError(f"offset {offset} was acknowledged for {ident}, there is {records.get(offset)}")
        self.rig.kept += len(records) - len(self.acknowledged)
        self.note_acknowledged(child)
        return records | {told["offset"]: (told["writer"], told["number"]) for told in child.told if "offset" in told}

    def cut(self) -> None:
        """Cut the power; the files must be on the disk as they were in memory."""
        before = self.log_bytes()
        self.disk.cut()
        for child in self.children:
            child.end()
        self.children.clear()
        self.disk.unmount()
        self.disk.mount()
        after = self.log_bytes()
        if before.keys() != after.keys():
            raise LossError(f"the files are {sorted(after)}, and were {sorted(before)}")
        for name, data in before.items():
            if after[name] != data:
                at = next((i for i, (a, b) in enumerate(zip(data, after[name], strict=False)) if a != b), -1)
                raise LossError(f"{name} differs from byte {at} on: {len(data)} bytes, {len(after[name])} on the disk")

    def log_bytes(self) -> dict[str, bytes]:
        """Without zeros at the end: those may lie ahead of the log, or not."""
        return {file.name: file.read_bytes().rstrip(b"\0") for file in self.path.glob(f"{TOPIC}-0/*.log")}


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="lets fsync fail under pylog", allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--control", choices=("cache", "forgotten"))
    parser.add_argument("--role", choices=("write", "check"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--writer", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "write":
        write(given.path, given.seed, given.writer)
        return 0
    if given.role == "check":
        check(given.path, given.seed)
        return 0
    problem = powercut_disk.problem("ext4")
    if problem is not None:
        sys.stderr.write(f"failed_fsync: cannot be tried here: {problem}\n")
        return 2
    powercut_disk.hide_mounts()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rig = Rig(given.seed, given.control)
    begun = time.monotonic()
    status, word = 0, "nothing lost"
    sys.stdout.write(f"failed_fsync: {given}\n")
    try:
        while rig.runs < given.runs:
            rig.run()
    except LossError as error:
        status, word = 1, f"LOST: {error}"
    except BaseException:
        traceback.print_exc()
        status, word = 3, "FAILED"
    sys.stdout.write(
        f"{rig.runs} failed fsyncs in {time.monotonic() - begun:.1f} s, {rig.acknowledged} records acknowledged, "
        f"{rig.kept} kept besides, {rig.refused} openings refused for want of room: {word}\n"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
