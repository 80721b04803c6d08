"""Several processes, one partition: writers under random SIGKILL and SIGSTOP, readers that read it all.

    python tests/crash/sharing.py --seconds 60 [--writers 4] [--readers 4] [--seed N] [--control]

Each writer tells what was acknowledged to it; each reader tells every record it was given.  Afterwards every
acknowledged record must have been read once, by each reader, at its offset, and offsets must be dense.  --control:
writers that tell before they have the answer; this must be caught.  Exits 1 if anything was lost, doubled or out of
order.
"""

import argparse
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import pylog
from pylog import TopicPartition

TOLD = struct.Struct("<qqq")  # writer, number, offset
SEEN = struct.Struct("<qqq")  # offset, writer, number
TOPIC = "shared"


def write(directory: str, writer: int, fd: int, control: bool) -> None:
    """Send for ever; tell the place of each record once it is acknowledged."""
    producer = pylog.open(directory, flush_ms=None).producer(linger_ms=1)
    number, chooser = 0, random.Random(writer)
    while True:
        count = chooser.randrange(1, 4)
        values = [b"%d:%d:%s" % (writer, number + i, b"x" * chooser.randrange(200)) for i in range(count)]
        if control:  # a lie: the next to die tells of records that never were
            os.write(fd, b"".join(TOLD.pack(writer, number + i, -1) for i in range(count)))
        places = producer.send_many(TOPIC, values, partition=0).get()
        offsets = [offset for ranges in places.values() for one in ranges for offset in one]
        if not control:
            os.write(fd, b"".join(TOLD.pack(writer, number + i, offset) for i, offset in enumerate(offsets)))
        number += count


def read(directory: str, seconds: float, fd: int) -> None:
    """Read all there is, and what comes, until nothing has come for a while after `seconds`."""
    consumer = pylog.open(directory, flush_ms=None).consumer()
    consumer.assign([TopicPartition(TOPIC, 0)])
    end, expected = time.monotonic() + seconds, 0
    while True:
        got = consumer.poll(timeout_ms=300, max_records=5000)
        for record in (record for records in got.values() for record in records):
            if record.offset != expected:
                sys.exit(f"offset {record.offset}, {expected} was expected")
            expected += 1
            writer, number, _ = record.value.split(b":", 2)
            os.write(fd, SEEN.pack(record.offset, int(writer), int(number)))
        if not got and time.monotonic() > end:
            os._exit(0)  # as if killed: leaving must not be needed


class Child:
    """A process of this file, and the file that it tells its story in."""

    def __init__(self, *arguments: object) -> None:
        self.story: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        fd = self.story.fileno()
        command = [sys.executable, __file__, *map(str, arguments), "--fd", str(fd)]
        self.process = subprocess.Popen(command, pass_fds=[fd])

    def told(self, form: struct.Struct) -> list[tuple[Any, ...]]:
        """What it told, whole entries only."""
        self.story.seek(0)
        data = self.story.read()
        return list(form.iter_unpack(data[: len(data) // form.size * form.size]))


class Run:
    """One run: what was done, and what is wrong."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory, self.options = directory, options
        self.chooser = random.Random(options.seed)
        self.writers: list[Child] = []
        self.stories: list[Child] = []
        self.kills = self.stops = 0

    def start_writer(self) -> Child:
        """One more writer, with a number of its own."""
        control = ["--control"] if self.options.control else []
        child = Child("--child", "write", "--directory", self.directory, "--number", len(self.stories), *control)
        self.stories.append(child)
        return child

    def disturb(self) -> None:
        """Kill a writer and start another, or stop one for a moment."""
        at = self.chooser.randrange(len(self.writers))
        writer = self.writers[at]
        if writer.process.poll() is not None:
            raise RuntimeError(f"a writer ended by itself: {writer.process.returncode}")
        if self.chooser.random() < 0.6:
            writer.process.kill()
            writer.process.wait()
            self.writers[at] = self.start_writer()
            self.kills += 1
        else:
            writer.process.send_signal(signal.SIGSTOP)
            time.sleep(self.chooser.random() * 0.1)
            writer.process.send_signal(signal.SIGCONT)
            self.stops += 1

    def play(self) -> list[str]:
        """Run it and return what is wrong."""
        with pylog.open(self.directory, segment_bytes=200_000) as log:
            log.admin.create_topic(TOPIC)
        seconds = self.options.seconds
        readers = [
            Child("--child", "read", "--directory", self.directory, "--seconds", seconds)
            for _ in range(self.options.readers)
        ]
        self.writers = [self.start_writer() for _ in range(self.options.writers)]
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(self.chooser.random() * 0.3)
                self.disturb()
        finally:
            for writer in self.writers:
                writer.process.kill()
                writer.process.wait()
        wrong = [f"reader {i} failed" for i, reader in enumerate(readers) if reader.process.wait(60)]
        acknowledged = {(writer, number): offset for c in self.stories for writer, number, offset in c.told(TOLD)}
        for i, reader in enumerate(readers):
            wrong += [f"reader {i}: {problem}" for problem in compare(acknowledged, reader.told(SEEN))]
        print(f"{len(acknowledged)} acknowledged, {self.kills} kills, {self.stops} stops, {len(wrong)} wrong")
        return wrong


def compare(acknowledged: dict[tuple[int, int], int], seen: list[tuple[Any, ...]]) -> list[str]:
    """What a reader missed or got twice."""
    places = {(writer, number): offset for offset, writer, number in seen}
    wrong = [] if len(places) == len(seen) else [f"{len(seen) - len(places)} records came twice"]
    for record, offset in acknowledged.items():
        if record not in places or offset not in (-1, places[record]):
            wrong.append(f"record {record} acknowledged at {offset}, read at {places.get(record)}")
    return wrong[:5]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child == "write":
        write(options.directory, options.number, options.fd, options.control)
    if options.child == "read":
        read(options.directory, options.seconds, options.fd)
    print(f"seed {options.seed}")
    directory = Path(tempfile.mkdtemp(prefix="pylog-sharing-"))
    try:
        wrong = Run(directory, options).play()
    finally:
        shutil.rmtree(directory)
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
