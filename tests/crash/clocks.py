"""Moves the wall clock under pylog and looks whether it kept its promises; see docs/durability.md.

python tests/crash/clocks.py --scripts 1000

Each script: some appends, a jump of the clock (a day either way, frozen, before 1970, after 2038, back), and so on,
with closing and opening and two handles.  Nothing is lost, each record has the timestamp that the clock showed, time
lookups answer as a scan of the timestamps does, rolls are bounded by the jumps, nothing is deleted, and no wait takes
longer or shorter than it should.

With --control the rig itself expects one timestamp more than there is: it must be missed.

Exit status: 0, all scripts went well; 1, something was wrong; 2, it cannot be tried here.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shim.c")
VARIABLE = "PYLOG_CLOCK"
BLOCK = struct.Struct("qq")
SECOND = 10**9
DAY = 24 * 3600 * SECOND
JUMPS = {
    "a day on": (0, DAY),
    "a day back": (0, -DAY),
    "an hour back": (0, -DAY // 24),
    "true": (0, 0),
    "a second back": (0, -SECOND),
    "frozen": (1, 1_760_000_000 * SECOND),
    "frozen in 1969": (1, -5_000 * SECOND),
    "1960": (0, -2_080_000_000 * SECOND),
    "2040": (0, 450_000_000 * SECOND),
    "2106": (0, 2_550_000_000 * SECOND),
    "in 1970": (1, 0),
}
WAIT_MS = 30
APPENDS_MAX = 12


class WrongError(Exception):
    """Not what the promise says."""


def start_again() -> None:
    """This program once more, under the shim."""
    home = Path(tempfile.mkdtemp(prefix="pylog-clocks-"))
    library, block = home / "clock_shim.so", home / "clock"
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    block.write_bytes(bytes(mmap.PAGESIZE))
    environment = {**os.environ, "LD_PRELOAD": str(library), VARIABLE: str(block)}
    status = subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=environment, check=False).returncode
    shutil.rmtree(home)
    sys.exit(status)


class Clock:
    """The wall clock, to be moved."""

    def __init__(self) -> None:
        with open(os.environ[VARIABLE], "r+b") as file:
            self._block = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.set("a day on")
        if abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) > 1 or time.time() - self.true() < 80_000:
            raise WrongError("the clock does not move: the shim is not in place")
        self.set("true")

    def set(self, how: str) -> None:
        """Jump."""
        BLOCK.pack_into(self._block, 0, *JUMPS[how])

    def true(self) -> float:
        """What it would show without the shim."""
        before = BLOCK.unpack_from(self._block)
        self.set("true")
        now = time.time()
        BLOCK.pack_into(self._block, 0, *before)
        return now


def script(path: Path, clock: Clock, chance: random.Random, *, control: bool) -> int:
    """One script; the number of jumps."""
    import pylog
    from pylog import TopicPartition

    tp = TopicPartition("orders", 0)
    options = {
        "segment_ms": chance.choice([3_600_000, 7 * 86_400_000]),
        "index_interval_bytes": chance.choice([0, 200]),
    }
    stamped_by_log = chance.random() < 0.3
    if stamped_by_log:
        options["message_timestamp_type"] = "LogAppendTime"
    clock.set(chance.choice(list(JUMPS)))
    log = pylog.open(path, flush_ms=20, **options)
    other = pylog.open(path) if chance.random() < 0.5 else None
    producers = [handle.producer(acks=chance.choice([1, "all"]), linger_ms=1) for handle in (log, other) if handle]
    kept: list[tuple[bytes, int]] = []
    jumps = 0
    for _ in range(chance.randrange(3, 12)):
        clock.set(chance.choice(list(JUMPS)))
        jumps += 1
        for _ in range(chance.randrange(1, APPENDS_MAX)):
            value = b"%d" % len(kept) + b"." * chance.randrange(60)
            low = int(time.time() * 1000) - 1
            placed = chance.choice(producers).send("orders", value).get()
            high = int(time.time() * 1000) + 1
            if placed.offset != len(kept):
                raise WrongError(f"offset {placed.offset}, {len(kept)} expected")
            if not low <= placed.timestamp <= high and not (low < 0 and placed.timestamp <= 0):
                raise WrongError(f"timestamp {placed.timestamp} while the clock went from {low} to {high}")
            kept.append((value, placed.timestamp))
        check_waits(log, tp)
        if chance.random() < 0.2:
            for handle in [h for h in (log, other) if h]:
                handle.close()
            clock.set(chance.choice(list(JUMPS)))
            log, other = pylog.open(path, flush_ms=20), None
            producers = [log.producer(acks="all")]
    if control:
        kept.append((b"never sent", 5))
    for turn in range(2):
        read = [(record.value, record.timestamp) for record in log.read("orders")]
        if read != kept:
            raise WrongError(f"{len(read)} records where {len(kept)} were acknowledged, or others")
        check_times(log, tp, [timestamp for _, timestamp in kept], chance)
        segments = log.admin.describe_topics(["orders"])[0]["partitions"][0]["segments"]
        if segments > 2 * jumps + 2:
            raise WrongError(f"{segments} segments after {jumps} jumps of the clock")
        if turn == 0:
            for handle in [h for h in (log, other) if h]:
                handle.close()
            log = pylog.open(path)
    log.close()
    return jumps


def check_waits(log: object, tp: object) -> None:
    """A poll at the end of the log takes the time that it was given, whatever the wall clock does."""
    with log.consumer() as consumer:  # type: ignore[attr-defined]
        consumer.assign([tp])
        consumer.seek_to_end(tp)
        begun = time.monotonic()
        if consumer.poll(timeout_ms=WAIT_MS):
            raise WrongError("records behind the end")
        waited_ms = (time.monotonic() - begun) * 1000
    if not WAIT_MS * 0.9 <= waited_ms <= WAIT_MS + 2000:
        raise WrongError(f"a wait of {WAIT_MS} ms took {waited_ms:.0f}")


def check_times(log: object, tp: object, timestamps: list[int], chance: random.Random) -> None:
    """What offsets_for_times says is the first record, in offset order, that is not older."""
    with log.consumer() as consumer:  # type: ignore[attr-defined]
        for wanted in [*chance.sample(timestamps, min(6, len(timestamps))), 0, 1, max(timestamps), max(timestamps) + 1]:
            asked = max(wanted, 0)
            found = consumer.offsets_for_times({tp: asked})[tp]
            first = next((at for at, timestamp in enumerate(timestamps) if timestamp >= asked), None)
            if (found.offset if found else None) != first:
                raise WrongError(f"time {asked}: {found}, but record {first} is the first of {timestamps}")


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="moves the wall clock under pylog")
    parser.add_argument("--scripts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--control", action="store_true")
    options = parser.parse_args()
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        sys.stderr.write("clocks: cannot be tried here: Linux and gcc are needed\n")
        return 2
    if VARIABLE not in os.environ:
        start_again()
    import pylog

    clock = Clock()
    print(f"seed {options.seed}", flush=True)
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pylog-clocks-", dir=memory if memory.is_dir() else None))
    begun, jumps = time.monotonic(), 0
    try:
        for number in range(options.scripts):
            chance = random.Random(options.seed + number)
            try:
                jumps += script(path / "data", clock, chance, control=options.control)
            except (WrongError, pylog.PylogError) as error:
                traceback.print_exc()
                print(f"script {number} (--seed {options.seed + number} --scripts 1): {error}", flush=True)
                return 1
            shutil.rmtree(path / "data")
    finally:
        clock.set("true")
        shutil.rmtree(path)
    seconds = time.monotonic() - begun
    print(f"{options.scripts} scripts, {jumps} jumps of the clock, {seconds:.0f} s: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
