"""Key-ordered workers under fire: random handlers, random failures, and SIGKILL.

    python tests/crash/workers_rig.py [--records 1000000] [--keys 10000] [--lanes 16] [--kills 5] [--members 1]
        [--partitions 8] [--commit-seconds 0.1] [--seed N] [--control unordered|read-is-done|forgetful]

Processes of one member each handle numbered records.  Handlers take a random time, fail at random, and for some records
always; each attempt is told to one file, in the order in which it ended.  Again and again a process is killed and
another one started, until all is committed.  Afterwards:

- for each key, the order of first completions is the log's;
- every record was handled, or is a dead letter;
- handled again was only what had not been committed as finished when its process was killed: nothing below the
  watermark, and nothing that the commit's metadata names.  (With several members only: what one that was not killed
  has handled.  What another member takes over at once it may commit before anybody has looked.)

--control: a defect is planted that must be found: lanes without regard to keys, commits of what was only read, or
metadata that is thrown away.  Exits 1 if anything was lost, out of order, or repeated without need.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pylog
from pylog import OffsetAndMetadata, TopicPartition
from pylog._workers import reader, tracker
from pylog._workers.finished import decode_finished

TOPIC, GROUP = "work", "crew"
# Process, partition, offset, what; of 16 bytes, for a kill may cut a write where a page ends.
TOLD = struct.Struct("<IHQBx")
DONE, FAILED = 0, 1
RETRIES = 3
POISONED_OF = 20_000  # one record of so many always fails
FAILING_OF = 200  # and one of so many fails once
SLOW = ((100, 0.01), (3000, 0.4))  # one handler of so many takes up to so long
END_SECONDS_MAX = 1800
STORIES_MAX = 3  # of keys out of order, told whole
CONTROLS = ("unordered", "read-is-done", "forgetful")


class HastyTracker(tracker.Tracker):
    """Commits what was read, finished or not."""

    def snapshot(self) -> OffsetAndMetadata:
        """What is committed."""
        return OffsetAndMetadata(self.next)


def work(place: Path, number: int, options: argparse.Namespace) -> None:
    """Handle records until killed, or until stdin ends."""
    chance = random.Random(options.seed * 1000 + number)
    told = os.open(place / "told", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    logging.getLogger("pylog").setLevel(logging.ERROR)
    reader.COMMIT_SECONDS = options.commit_seconds
    if options.control == "read-is-done":
        reader.Tracker = HastyTracker  # type: ignore[misc]
    elif options.control == "forgetful":
        reader.decode_finished = lambda *_: []
    failed_once: set[tuple[int, int]] = set()

    def handle(record: pylog.Record) -> None:
        for one_of, seconds_max in SLOW:
            if chance.randrange(one_of) == 0:
                time.sleep(chance.random() * seconds_max)
        where = record.partition, record.offset
        fails = is_poisoned(where) or (chance.randrange(FAILING_OF) == 0 and where not in failed_once)
        os.write(told, TOLD.pack(number, *where, FAILED if fails else DONE))
        if fails:
            failed_once.add(where)
            raise ValueError("as the dice fell")

    with pylog.open(place / "data") as log:
        workers = log.workers(
            handle,
            TOPIC,
            group_id=GROUP,
            workers=options.lanes,
            retries=RETRIES,
            retry_delay=0.02,
            order="none" if options.control == "unordered" else "key",
        )
        with workers:
            workers.start()
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            threading.Thread(target=lambda: (sys.stdin.read(), workers.stop()), daemon=True).start()
            workers.join()


def start(place: Path, number: int, options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process with a member."""
    given = [
        f"--{name.replace('_', '-')}={getattr(options, name)}"
        for name in ("lanes", "seed", "control", "commit_seconds")
    ]
    process = subprocess.Popen(
        [sys.executable, __file__, f"--work={place}", f"--number={number}", *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "a process did not start"
    return process


def fill(log: pylog.Log, options: argparse.Namespace, share: int) -> None:
    """One share of the records, of random keys."""
    chance = random.Random(options.seed + share)
    bounds = [part * options.records // (options.kills + 1) for part in (share, share + 1)]
    with log.producer() as producer:
        for first in range(bounds[0], bounds[1], 100_000):
            numbers = range(first, min(first + 100_000, bounds[1]))
            keys = [b"key %d" % chance.randrange(options.keys) for _ in numbers]
            producer.send_many(TOPIC, [b"%d" % number for number in numbers], keys).get()


def commits(log: pylog.Log, options: argparse.Namespace) -> dict[int, OffsetAndMetadata]:
    """What the group has committed, by partition."""
    found = {}
    with log.consumer(group_id=GROUP, enable_auto_commit=False) as consumer:
        for partition in range(options.partitions):
            committed: Any = consumer.committed(TopicPartition(TOPIC, partition), metadata=True)
            found[partition] = committed or OffsetAndMetadata(0)
    return found


class Finished:
    """The offsets of a partition that a commit says are finished."""

    def __init__(self, committed: OffsetAndMetadata) -> None:
        self._watermark = committed.offset
        self._above = {
            offset
            for first, end in decode_finished(committed.offset, committed.metadata)
            for offset in range(first, end)
        }

    def __contains__(self, offset: int) -> bool:
        return offset < self._watermark or offset in self._above


def told_count(place: Path) -> int:
    """How many attempts were told."""
    told = place / "told"
    return told.stat().st_size // TOLD.size if told.exists() else 0


def until(holds: Callable[[], bool], members: list[subprocess.Popen[str]]) -> None:
    """Wait for it, while all members run."""
    deadline = time.monotonic() + END_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished in {END_SECONDS_MAX} s")
        for member in members:
            if member.poll() is not None:
                raise ChildProcessError(f"a process ended by itself with {member.returncode}")
        time.sleep(0.01)


def run(place: Path, options: argparse.Namespace) -> list[str]:
    """Fill, handle, kill; then look.  What was wrong."""
    chance = random.Random(options.seed)
    known: dict[int, dict[int, Finished]] = {}  # process -> what was finished before it began
    with pylog.open(place / "data", segment_bytes=16 << 20) as log:
        log.admin.create_topic(TOPIC, partitions=options.partitions)
        fill(log, options, 0)
        members = [start(place, number, options) for number in range(options.members)]
        numbers = list(range(options.members))
        for kill in range(options.kills):
            half_way = (2 * kill + 1) * options.records // (2 * options.kills + 2)
            until(lambda: told_count(place) >= half_way, members)  # noqa: B023 - it is called now
            fill(log, options, kill + 1)
            victim = chance.randrange(options.members)
            members[victim].send_signal(signal.SIGKILL)
            members[victim].wait()
            numbers[victim] = max(numbers) + 1
            if options.members == 1:
                known[numbers[victim]] = {at: Finished(found) for at, found in commits(log, options).items()}
            members[victim] = start(place, numbers[victim], options)
        parts = log.topic(TOPIC).partitions
        ends = {number: part.native.state().log_end_offset for number, part in enumerate(parts)}
        until(lambda: {number: at.offset for number, at in commits(log, options).items()} == ends, members)
        for member in members:
            member.communicate(timeout=60)
            if member.returncode:
                return [f"a process ended with {member.returncode}"]
    killed = set(range(max(numbers) + 1)).difference(numbers)
    with pylog.open(place / "data", read_only=True) as log:
        return judge(log, place, options, ends, known, killed)


def judge(
    log: pylog.Log,
    place: Path,
    options: argparse.Namespace,
    ends: dict[int, int],
    known: dict[int, dict[int, Finished]],
    killed: set[int],
) -> list[str]:
    """Compare what was told with the log."""
    keys = {(record.partition, record.offset): record.key for record in log.read(TOPIC)}
    dead = set()
    if f"dlq.{GROUP}.{TOPIC}" in log.admin.list_topics():
        for record in log.read(f"dlq.{GROUP}.{TOPIC}"):
            told = dict(record.headers)
            dead.add((int(told["__dlq.errors.partition"] or b""), int(told["__dlq.errors.offset"] or b"")))
    first: dict[tuple[int, int], int] = {}  # place -> process that completed it first
    last: dict[bytes, tuple[int, int]] = {}  # key -> place of its latest first completion
    failures: dict[tuple[int, int, int], int] = defaultdict(int)
    disorder = needless = repeats = attempts = 0
    story = (place / "told").read_bytes()
    for number, partition, offset, what in TOLD.iter_unpack(story):
        attempts += 1
        at = partition, offset
        if what == FAILED:
            failures[number, partition, offset] += 1
            if failures[number, partition, offset] <= RETRIES:
                continue  # else it is given up: completed, in a way
        if at in first:
            repeats += 1
            finished = known.get(number)
            needless += first[at] not in killed or (finished is not None and offset in finished[partition])
            continue
        first[at] = number
        key = keys[at]
        if last.get(key, at) > at:
            disorder += 1
            if disorder <= STORIES_MAX:
                print(f"{key!r}: {at} after {last[key]}, by process {number}; killed: {sorted(killed)}; its story:")
                print([told for told in TOLD.iter_unpack(story) if keys[told[1], told[2]] == key])
        last[key] = at
    lost = [at for at in keys if at not in first and at not in dead]
    unsent = [at for at in keys if is_poisoned(at) and at not in dead]
    print(
        f"{len(keys):,} records, {options.keys:,} keys, {options.lanes} lanes, {options.members} members, "
        f"{len(killed)} killed: {attempts:,} attempts, {repeats:,} repeated, {len(dead):,} dead letters"
    )
    found = []
    if lost or unsent or sum(ends.values()) != len(keys):
        found.append(f"{len(lost)} records were lost, {len(unsent)} dead letters missing, first {(lost + unsent)[:3]}")
    if disorder:
        found.append(f"{disorder} records were completed after a later one of their key")
    if needless:
        found.append(f"{needless} records were handled again although they were known to be finished")
    return found


def is_poisoned(at: tuple[int, int]) -> bool:
    """Whether this record (partition, offset) always fails."""
    return (at[1] * 7919 + at[0]) % POISONED_OF == 1


def main() -> int:
    """Run as the rig, or as one of its processes."""
    parser = argparse.ArgumentParser()
    for name, default in (("records", 1_000_000), ("keys", 10_000), ("lanes", 16), ("kills", 5), ("members", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--commit-seconds", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--control", choices=CONTROLS, default=None)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--number", type=int, default=0)
    options = parser.parse_args([word for word in sys.argv[1:] if word != "--control=None"])
    if options.work:
        work(options.work, options.number, options)
        return 0
    print("seed", options.seed, flush=True)
    place = Path(tempfile.mkdtemp(prefix="pylog-workers-"))
    begun = time.monotonic()
    try:
        found = run(place, options)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for line in found:
        print("WRONG:", line)
    print(f"{'failed' if found else 'passed'} in {time.monotonic() - begun:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
