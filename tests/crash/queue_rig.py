"""One queue, many consumers in several processes, of which one is killed (SIGKILL) every second.

    python tests/crash/queue_rig.py [--messages 1000000] [--processes 4] [--consumers 8] [--batch 100] [--acks 1]
                                    [--kill-every 1] [--kill-all] [--order none] [--seed N] [--control]

Each consumer tells what it was handed, and what it has settled after that has returned.  Afterwards every message must
have been seen; nothing may have been acked twice, or handed out again after its ack was told; what was seen twice must
have been in flight when its process was killed, or nacked.  --kill-every 0 kills nobody: then each message is acked
exactly once.  --kill-all kills all processes at once, so that the next have nobody to ask.  With --order key, messages
of one key must be acked in their order.  The files of the queue and of its dead letters are measured all the time.
--control: consumers that ack before they look; this must be caught.  Exits 1 if anything is wrong.
"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import pylog

TOLD = struct.Struct("<cqq")  # kind, number, moment
NAME = "rig"
VALUE = struct.Struct("<q92x")
KEYS = 1000
SEGMENT_BYTES = 1 << 20
EXCESS_BYTES_MAX = 4 << 20
NACK_EVERY, REJECT_EVERY = 1009, 50_021
SAMPLE_SECONDS = 0.1
CONTROL_PAUSE_SECONDS = 0.02


def tell(fd: int, kind: bytes, messages: list[pylog.Message], moment: int = 0) -> None:
    """Say it, in one write.  moment: before it was settled; 0: now, after it was handed out."""
    moment = moment or time.monotonic_ns()
    os.write(fd, b"".join(TOLD.pack(kind, VALUE.unpack(m.value)[0], moment) for m in messages))


def consume(queue: pylog.Queue, batch: int, fd: int, control: bool) -> None:
    """Take messages and settle them, for ever."""
    while True:
        try:
            messages = queue.get_many(batch)
        except pylog.ClosedError:
            return
        if control:
            queue.ack_many(messages)
            time.sleep(CONTROL_PAUSE_SECONDS)
            tell(fd, b"s", messages)
            tell(fd, b"a", messages)
            continue
        tell(fd, b"s", messages)
        acked = []
        for message in messages:
            number, moment = VALUE.unpack(message.value)[0], time.monotonic_ns()
            if number % REJECT_EVERY == 1:
                message.reject("not this one")
                tell(fd, b"r", [message], moment)
            elif number % NACK_EVERY == 1 and message.error is None:
                message.nack(0.02, "not yet")
                tell(fd, b"n", [message], moment)
            else:
                acked.append(message)
        moment = time.monotonic_ns()
        queue.ack_many(acked)
        tell(fd, b"a", acked, moment)


def run_consumers(options: argparse.Namespace) -> None:
    """A process of the rig."""
    log = pylog.open(options.directory, flush_ms=None)
    queue = log.queue(NAME, acks=options.acks)
    for _ in range(options.consumers):
        arguments = queue, options.batch, options.fd, options.control
        threading.Thread(target=consume, args=arguments, daemon=True).start()
    sys.stdin.read()  # until the rig ends it
    log.close()


class Child:
    """A process of this file, and the file that it tells its story in."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.story: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.was_killed = False
        fd = self.story.fileno()
        each = options.consumers // options.processes
        arguments = ["--directory", directory, "--consumers", each, "--batch", options.batch, "--acks", options.acks]
        command = [sys.executable, __file__, "--child", "--fd", fd, *arguments]
        command += ["--control"] if options.control else []
        self.process = subprocess.Popen(list(map(str, command)), pass_fds=[fd], stdin=subprocess.PIPE)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.was_killed = True

    def told(self) -> list[tuple[bytes, int, int]]:
        """What it told, whole entries only."""
        self.story.seek(0)
        data = self.story.read()
        return list(TOLD.iter_unpack(data[: len(data) // TOLD.size * TOLD.size]))


class Run:
    """One run: what was done, and what is wrong."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory, self.options = directory, options
        self.chooser = random.Random(options.seed)
        self.children: list[Child] = []
        self.stories: list[Child] = []
        self.kills = 0
        self.samples: list[int] = []  # bytes beside those of messages that are not acked
        self.message_bytes = 0.0
        self.put = 0

    def start(self) -> Child:
        """One more process."""
        child = Child(self.directory, self.options)
        self.stories.append(child)
        return child

    def disturb(self) -> None:
        """Kill one, or all, and start as many."""
        chosen = range(len(self.children)) if self.options.kill_all else [self.chooser.randrange(len(self.children))]
        for at in chosen:
            if self.children[at].process.poll() is not None:
                raise RuntimeError(f"a process ended by itself: {self.children[at].process.returncode}")
        for at in chosen:
            self.children[at].kill()
        for at in chosen:
            self.children[at] = self.start()
            self.kills += 1

    def sample(self, log: pylog.Log) -> int:
        """Measure the files; how many messages are not acked."""
        queue = log.queue(NAME, acks=self.options.acks)
        with queue:
            before = queue.qsize() + queue.dead_letters.qsize()
            used = 0
            for topic in (queue.topic, f"dlq.{queue.topic}"):
                for directory in self.directory.glob(f"{topic}-?"):
                    for file in directory.iterdir():
                        try:
                            used += file.stat().st_size
                        except FileNotFoundError:
                            continue
            left = queue.qsize()
            held = max(before, left + queue.dead_letters.qsize())
        self.samples.append(used - int(held * self.message_bytes))
        return left

    def produce(self, log: pylog.Log, count: int) -> None:
        """Put the next messages in."""
        numbers = range(self.put, self.put + count)
        with log.queue(NAME, acks=self.options.acks) as queue:
            keys = [b"%d" % (number % KEYS) for number in numbers] if self.options.order == "key" else None
            queue.put_many([VALUE.pack(number) for number in numbers], keys).get()
        self.put += count

    def play(self) -> list[str]:
        """Run it and return what is wrong."""
        options = self.options
        with pylog.open(self.directory, segment_bytes=SEGMENT_BYTES, flush_ms=None) as log:
            with log.queue(NAME, acks=options.acks, max_deliveries=50, order=options.order) as queue:
                topic = queue.topic
            self.produce(log, 1000)
            self.message_bytes = log.topic(topic).partition(0).native.state().log_bytes / 1000
            begun = time.monotonic()
            self.children = [self.start() for _ in range(options.processes)]
            try:
                self.drive(log)
            finally:
                seconds = time.monotonic() - begun
                for child in self.children:
                    child.process.communicate()
            with log.queue(NAME) as queue:
                dead = self.dead(queue)
        wrong = self.compare(dead)
        most = max(self.samples)
        print(
            f"{self.put} messages, {options.messages / seconds:.0f}/s, {self.kills} kills, {len(dead)} dead letters; "
            f"{len(self.samples)} samples of the files: at most {most / 2**20:.2f} MiB beside what is not acked, "
            f"{self.samples[-1] / 2**20:.2f} at the end; {len(wrong)} wrong"
        )
        if most > EXCESS_BYTES_MAX:
            wrong.append(f"the files took {most} bytes beside those of messages that were not acked")
        return wrong

    def drive(self, log: pylog.Log) -> None:
        """Put, kill and measure until all is consumed."""
        options = self.options
        next_kill = time.monotonic() + (options.kill_every or float("inf"))
        next_sample, left = 0.0, 0
        while left or self.put < options.messages:
            now = time.monotonic()
            if now >= next_kill:
                self.disturb()
                next_kill += options.kill_every
            if now >= next_sample:
                left = self.sample(log)
                next_sample = time.monotonic() + SAMPLE_SECONDS
            elif self.put < options.messages and left < options.ahead:
                count = min(5000, options.messages - self.put)
                self.produce(log, count)
                left += count
            else:
                time.sleep(SAMPLE_SECONDS / 4)

    def dead(self, queue: pylog.Queue) -> list[int]:
        """Numbers of the dead letters."""
        numbers = []
        while (size := queue.dead_letters.qsize()) > 0:
            messages = queue.dead_letters.get_many(size, timeout=5)
            numbers += [VALUE.unpack(message.value)[0] for message in messages]
            queue.dead_letters.ack_many(messages)
        return numbers

    def compare(self, dead: list[int]) -> list[str]:
        """What was lost, or came again without a reason."""
        seen, settled, in_flight = [0] * self.put, [0] * self.put, [0] * self.put
        order: list[tuple[Any, ...]] = []
        first_seen, settled_at = [0] * self.put, [0] * self.put
        told_twice = nacks = 0
        for child in self.stories:
            open_ones: dict[int, int] = {}
            for kind, number, moment in child.told():
                if kind == b"s":
                    seen[number] += 1
                    first_seen[number] = min(first_seen[number] or moment, moment)
                    open_ones[number] = open_ones.get(number, 0) + 1
                    continue
                open_ones[number] -= 1
                if kind == b"n":
                    nacks += 1
                    seen[number] -= 1  # to come again
                else:
                    settled[number] += 1
                    settled_at[number] = moment
            for number, count in open_ones.items():
                in_flight[number] += count
                if count and not child.was_killed:
                    order.append((number, "was handed to a process that ended in peace, and not settled"))
        wrong = [f"message {number} {what}" for number, what in order]
        for number in range(self.put):
            if seen[number] + in_flight[number] == 0:
                wrong.append(f"message {number} was lost")
            elif settled[number] > 1:
                told_twice += 1
                wrong.append(f"message {number} was settled {settled[number]} times")
            elif seen[number] - in_flight[number] > 1:
                wrong.append(f"message {number} was handed out again, and not for a kill")
            elif not in_flight[number] and settled[number] != 1:
                wrong.append(f"message {number} was settled {settled[number]} times")
        if self.options.order == "key":
            for number in range(KEYS, self.put):
                if settled_at[number - KEYS] > first_seen[number]:
                    wrong.append(f"message {number} was handed out before {number - KEYS} of its key was settled")
        rejected = {number for number in range(self.put) if number % REJECT_EVERY == 1}
        if not self.options.control and set(dead) != rejected:
            wrong.append(f"dead letters {sorted(set(dead) ^ rejected)[:5]} are missing, or too many")
        again = sum(1 for number in range(self.put) if in_flight[number])
        print(f"{again} messages were in flight at a kill, {nacks} nacked, {told_twice} settled twice")
        return wrong


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--consumers", type=int, default=8, help="in all")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--acks", choices=["1", "all"], default="1")
    parser.add_argument("--ahead", type=int, default=100_000, help="messages that wait at most")
    parser.add_argument("--kill-every", type=float, default=1.0, help="seconds; 0: never")
    parser.add_argument("--kill-all", action="store_true")
    parser.add_argument("--order", choices=["none", "key"], default="none")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.acks = 1 if options.acks == "1" else "all"
    if options.child:
        run_consumers(options)
        return 0
    print(f"seed {options.seed}")
    directory = Path(tempfile.mkdtemp(prefix="pylog-queue-"))
    try:
        wrong = Run(directory, options).play()
    finally:
        shutil.rmtree(directory)
    for line in wrong[:20]:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
