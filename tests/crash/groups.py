"""Consumer groups under fire: members in several processes, one of which is killed or added every second.

    python tests/crash/groups.py --seconds 300 [--processes 4] [--members 2] [--partitions 16] [--seed N]
                                 [--control commit-first|no-locks]

Two producers write numbered records.  Each member polls, tells what it was given, and commits then.  Some processes
leave sleeping forked children behind when they are killed.  Afterwards:

- every record that was written was given to somebody (processing before commit loses nothing);
- in one generation of the group, no partition was given to two members, and at no time did two own one;
- how soon a killed member's partitions were owned by another is printed, and must be under a second.

--control: members that commit before they tell, or that own without asking; either must be caught.  Exits 1 if anything
was lost, owned twice or taken over late.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pylog
from pylog import TopicPartition

TOPIC, GROUP = "work", "crew"
TAKEOVER_SECONDS_MAX = 1.0
PRODUCERS = 2


class Story:
    """What a process tells, line by line; a kill loses none that was told."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, *event: object) -> None:
        """One line, with the time before it."""
        os.write(self._fd, (json.dumps([time.monotonic(), *event]) + "\n").encode())


class Listener(pylog.ConsumerRebalanceListener):
    """Tells what its member owns."""

    def __init__(self, story: Story, name: str) -> None:
        self._story, self._name = story, name

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Told once it is so."""
        self._story.tell("own", self._name, sorted(tp.partition for tp in assigned))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Told while it is still so."""
        self._story.tell("disown", self._name, sorted(tp.partition for tp in revoked))


def consume(log: pylog.Log, story: Story, name: str, control: str) -> None:
    """Be a member for ever."""
    consumer = log.consumer(group_id=GROUP, enable_auto_commit=False, max_poll_records=100)
    consumer.subscribe([TOPIC], listener=Listener(story, name))
    while True:
        given = consumer.poll(timeout_ms=1000)
        if not given:
            continue
        if control == "commit-first":
            consumer.commit()
            time.sleep(random.random() * 0.2)
        generation = consumer.group_metadata().generation_id
        spans = {tp.partition: (records[0].offset, records[-1].offset) for tp, records in given.items()}
        story.tell("given", name, generation, spans)
        if control != "commit-first":
            consumer.commit()


def be_process(directory: str, path: str, members: int, number: int, control: str) -> None:
    """So many members, each in a thread; every third process has forked children that sleep."""
    story = Story(Path(path))
    log = pylog.open(directory, flush_ms=None)
    if control == "no-locks":
        from pylog._groups.group_file import GroupFile

        GroupFile.try_own = lambda *_: True  # type: ignore[method-assign]
        GroupFile.lives = lambda *_: True  # type: ignore[method-assign]
    for i in range(members):
        name = f"{number}.{i}"
        threading.Thread(target=consume, args=(log, story, name, control), daemon=True).start()
    if number % 3 == 0:
        time.sleep(0.3)
        if os.fork() == 0:
            time.sleep(3600)
    threading.Event().wait()


def produce(directory: str, path: str, partitions: int) -> None:
    """Write to each partition in turn; tell how many each has."""
    story = Story(Path(path))
    producer = pylog.open(directory, flush_ms=None).producer(linger_ms=1)
    turn = 0
    while True:
        place = producer.send_many(TOPIC, [b"x" * 50] * 20, partition=turn % partitions).get()
        story.tell("sent", turn % partitions, max(one[-1] for one in place[TopicPartition(TOPIC, turn % partitions)]))
        turn += 1
        time.sleep(0.002)


class Run:
    """One run: what was done, and what is wrong."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory, self.options = directory, options
        self.chooser = random.Random(options.seed)
        self.started = 0
        self.living: dict[int, subprocess.Popen[bytes]] = {}
        self.killed: dict[int, float] = {}
        self.wrong: list[str] = []

    def start(self, role: str) -> subprocess.Popen[bytes]:
        """One more process."""
        number, self.started = self.started, self.started + 1
        options = self.options
        words = [
            "--child",
            role,
            "--directory",
            self.directory / "data",
            "--story",
            self.directory / f"{role}-{number}",
        ]
        words += ["--members", options.members, "--partitions", options.partitions, "--number", number]
        process = subprocess.Popen(
            [sys.executable, __file__, *map(str, words), "--control", options.control], start_new_session=True
        )
        if role == "consume":
            self.living[number] = process
        return process

    def kill(self) -> None:
        """Kill one process of members."""
        number = self.chooser.choice(sorted(self.living))
        process = self.living.pop(number)
        self.killed[number] = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.left_behind.append(process.pid)

    def play(self) -> list[str]:
        """Run it and return what is wrong."""
        options = self.options
        self.left_behind: list[int] = []
        with pylog.open(self.directory / "data", segment_bytes=1 << 20, flush_ms=None) as log:
            log.admin.create_topic(TOPIC, options.partitions)
            producers = [self.start("produce") for _ in range(PRODUCERS)]
            for _ in range(options.processes):
                self.start("consume")
            end = time.monotonic() + options.seconds
            try:
                while time.monotonic() < end:
                    time.sleep(1)
                    if len(self.living) >= options.processes:
                        self.kill()
                    else:
                        self.start("consume")
                for producer in producers:
                    producer.kill()
                    producer.wait()
                self._wait_until_consumed(log)
            finally:
                for process in producers:
                    process.kill()
                    process.wait()
                for number, process in self.living.items():
                    self.killed[number] = time.monotonic()
                    process.kill()
                    process.wait()
                for pid in [*self.left_behind, *(process.pid for process in self.living.values())]:
                    self._kill_group(pid)
            ends = log.consumer().end_offsets([TopicPartition(TOPIC, n) for n in range(options.partitions)])
        self._compare({tp.partition: offset for tp, offset in ends.items()})
        return self.wrong

    def _kill_group(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _wait_until_consumed(self, log: pylog.Log) -> None:
        tps = [TopicPartition(TOPIC, number) for number in range(self.options.partitions)]
        with log.consumer(group_id=GROUP) as onlooker:
            ends, limit = onlooker.end_offsets(tps), time.monotonic() + (5 if self.options.control else 60)
            while time.monotonic() < limit:
                if all((onlooker.committed(tp) or 0) >= ends[tp] for tp in tps):
                    return
                time.sleep(0.1)
        self.wrong.append("not all was committed in time")

    def _events(self) -> list[tuple[Any, ...]]:
        events = []
        for path in self.directory.glob("consume-*"):
            number = int(path.name.split("-")[1])
            events += [(line[0], number, *line[1:]) for line in map(json.loads, path.read_text().splitlines())]
        return sorted(events, key=lambda event: event[0])

    def _compare(self, ends: dict[int, int]) -> None:
        events = self._events()
        given: dict[int, list[tuple[int, int]]] = defaultdict(list)
        givers: dict[tuple[int, str], set[str]] = defaultdict(set)
        owner: dict[int, tuple[int, str]] = {}
        waits: list[float] = []
        handovers = 0
        for at, number, kind, name, *rest in events:
            if kind == "given":
                generation, spans = rest
                for partition, (first, last) in spans.items():
                    given[int(partition)].append((first, last))
                    givers[generation, partition].add(name)
            for partition in rest[0] if kind != "given" else ():
                if kind == "disown":
                    owner.pop(partition, None)
                    continue
                before = owner.get(partition)
                if before is not None and not (before[0] in self.killed and self.killed[before[0]] <= at):
                    self.wrong.append(f"{name} came to own {partition} while {before[1]} did")
                elif before is not None:
                    waits.append(at - self.killed[before[0]])
                handovers += 1
                owner[partition] = number, name
        self.wrong += [f"{key}: given to {names}" for key, names in givers.items() if len(names) > 1]
        for partition, end in ends.items():
            at = 0
            for first, last in sorted(given[partition]):
                if first > at:
                    self.wrong.append(f"partition {partition}: {at} to {first - 1} given to nobody")
                at = max(at, last + 1)
            if at < end:
                self.wrong.append(f"partition {partition}: {at} to {end - 1} given to nobody")
        self.wrong += [f"taken over after {wait:.2f} s" for wait in waits if wait > TAKEOVER_SECONDS_MAX]
        total = sum(last - first + 1 for spans in given.values() for first, last in spans)
        lines = [
            f"{sum(ends.values())} records, given {total} times",
            f"{len(self.killed)} kills, {handovers} handovers",
        ]
        if waits:
            median, longest = statistics.median(waits) * 1e3, max(waits) * 1e3
            lines.append(f"{len(waits)} partitions of the killed owned again after {median:.0f} ms (median)")
            lines.append(f"{longest:.0f} ms (longest)")
        print(f"{', '.join(lines)}; {len(self.wrong)} wrong")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--members", type=int, default=2, help="in each process")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--control", choices=["", "commit-first", "no-locks"], default="")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--story", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child == "consume":
        be_process(options.directory, options.story, options.members, options.number, options.control)
    if options.child == "produce":
        produce(options.directory, options.story, options.partitions)
    print(f"seed {options.seed}")
    directory = Path(tempfile.mkdtemp(prefix="pylog-groups-"))
    try:
        wrong = Run(directory, options).play()
    finally:
        shutil.rmtree(directory)
    for line in wrong[:10]:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
