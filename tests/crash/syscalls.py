"""Kill and fail at every system call of a script of 200 operations, and kill at every call of recovery.

    python tests/crash/syscalls.py --full [--jobs 2] [--kind kill] [--call pwrite64] [--at 17]
    python tests/crash/syscalls.py --sample 2        so many of each call, chosen by --seed
    python tests/crash/syscalls.py --control         acknowledgements that are lies must be caught

A process that has pylog loaded forks a child for each run; strace attaches to it, counts the calls from there on, and
at the k-th of a name kills the child, or lets the call fail, once or from then on. A dry run tells how many there are.
What must hold afterwards is in syscalls_check.py. Exits 1 if anything does not, 2 where no strace may attach.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import syscalls_check as checks
from syscalls_script import OPERATIONS, Script, Story

sys.path.pop(0)

SECONDS_MAX = 30
LIBC = ctypes.CDLL(None)
PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
MARK = "getpriority"
# Not calls on the directory; and those whose failure the kernel does not know: a close always closes, and so on.
NEITHER = {MARK, "exit_group", "rt_sigtimedwait", "rt_sigprocmask", "rt_sigaction", "restart_syscall", "brk", "getpid"}
NEITHER |= {
    "gettid",
    "clock_gettime",
    "clock_nanosleep",
    "getrandom",
    "madvise",
    "mprotect",
    "sched_yield",
    "prlimit64",
}
ONLY_KILLED = {"close", "munmap", "futex"}
TAKES_ROOM = {"write", "pwrite64", "pwritev", "pwritev2", "fallocate", "ftruncate", "openat", "mkdir", "mkdirat"}
TAKES_ROOM |= {"rename", "renameat", "renameat2"}
KINDS = ("kill", "EIO once", "EIO sticky", "ENOSPC once", "ENOSPC sticky", "recovery")


class Job(NamedTuple):
    """The `at`-th call of that name, and what is to happen to it."""

    kind: str
    call: str
    at: int

    def injection(self) -> str:
        """In strace's words."""
        if self.kind in ("kill", "recovery"):
            return f"{self.call}:signal=KILL:when={self.at}"
        error, how = self.kind.split()
        return f"{self.call}:error={error}:when={self.at}{'+' if how == 'sticky' else ''}"


class CannotTryError(Exception):
    """strace is missing, or may not attach."""


class Bench:
    """A place to run children in, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.story = Story()
        self.base = root / "base"
        self.recovered: dict[str, str] = {}
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        # Once here, so that all that Python loads late is there when the children begin.
        Script(root / "warm", self.story).run()
        assert not any(told.kind in (checks.FAILED, checks.BROKEN) for told in self.story), self.story.text

    def trace(self, act: Callable[[], object], *options: str) -> tuple[int, list[str]]:
        """Run `act` in a child under strace: how it ended, and the trace."""
        self.story.clear()
        ready, tell_ready = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                LIBC.prctl(PTRACER, ANYBODY, 0, 0, 0)
                os.close(ready)
                os.write(tell_ready, b"!")
                os.close(tell_ready)
                signal.sigwait({signal.SIGUSR1})
                act()
                os._exit(0)
            except BaseException:
                self.story.text = traceback.format_exc()
            os._exit(1)
        os.close(tell_ready)
        os.read(ready, 2)  # and then the end: what it does from here on is counted
        os.read(ready, 1)
        os.close(ready)
        path = self.root / "trace"
        command = ["strace", "-f", "-q", "-y", "-o", str(path), *options, "-p", str(child)]
        try:
            strace = subprocess.Popen(command, stderr=subprocess.PIPE)
        except FileNotFoundError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise CannotTryError("strace is not installed") from None
        try:
            self._await_tracer(child, strace)
            os.kill(child, signal.SIGUSR1)
            status = self._await_end(child)
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            strace.wait(SECONDS_MAX)
        return status, path.read_text(errors="replace").splitlines()

    @staticmethod
    def _await_tracer(child: int, strace: subprocess.Popen[bytes]) -> None:
        while True:
            state = Path(f"/proc/{child}/status").read_text()
            if "TracerPid:\t0\n" not in state:
                return
            if strace.poll() is not None:
                assert strace.stderr is not None
                raise CannotTryError(f"strace cannot attach: {strace.stderr.read().decode().strip()}")
            time.sleep(0.0005)

    @staticmethod
    def _await_end(child: int) -> int:
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        raise checks.WrongError(f"it hangs: not done after {SECONDS_MAX} seconds")

    def directory(self) -> Path:
        """An empty place for the script's directory: always the same name."""
        path = self.root / "data"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def make_base(self) -> None:
        """A directory as kill -9 leaves it, with half a batch behind the end of each partition."""
        checks.in_child(lambda: Script(self.base, self.story).run(OPERATIONS - 8, close=False))
        for segments in (sorted(place.glob("*.log")) for place in self.base.iterdir() if place.is_dir()):
            with segments[-1].open("rb") as last:
                head = last.read(90)
            with segments[-1].open("ab") as last:
                last.write(head)
        undisturbed = checks.copy(self.base, self.directory())
        checks.in_child(checks.open_only, undisturbed)
        self.recovered = checks.hash_files(undisturbed)

    def count_calls(self, kind: str) -> Counter[str]:
        """How many calls of each name a dry run makes."""
        if kind == "recovery":
            directory = checks.copy(self.base, self.directory())
            status, lines = self.trace(lambda: checks.open_only(directory))
        else:
            directory = self.directory()
            status, lines = self.trace(Script(directory, self.story).run)
            assert not any(told.kind == checks.FAILED for told in self.story), self.story.text
        assert status == 0, self.story.text
        return Counter(call for call in map(call_of, lines) if call is not None)

    def run(self, job: Job, *, liar: bool = False) -> bool:
        """Run it; False where the child never came to that call. Raises WrongError."""
        options = ("-e", f"trace={job.call},{MARK}", "-e", f"inject={job.injection()}")
        if job.kind == "recovery":
            directory = checks.copy(self.base, self.directory())
            status, lines = self.trace(lambda: checks.open_only(directory), *options)
            if not died_in(job, status, lines):
                return False
            checks.check_second_recovery(directory)
            now = checks.hash_files(directory)
            checks.must(now == self.recovered, f"other bytes than undisturbed: {checks.differing(now, self.recovered)}")
            return True
        directory = self.directory()
        status, lines = self.trace(Script(directory, self.story, liar=liar).run, *options)
        story = list(self.story)
        if job.kind == "kill":
            if not died_in(job, status, lines):
                return False
            checks.check_second_recovery(
                checks.copy(directory, self.root / "twice") if directory.exists() else self.base
            )
        else:
            checks.must(status == 0, f"it ended with {status}: {self.story.text}")
            injected = first_injected(lines)
            checks.check_acknowledgements(story, injected)
            if injected is None:
                return False
        checks.check_reopened(directory, story)
        return True


def call_of(line: str) -> str | None:
    """The call that a line of the trace begins."""
    found = re.match(r"\d+ +(\w+)\(", line)
    return found[1] if found else None


def died_in(job: Job, status: int, lines: list[str]) -> bool:
    """Whether the kill struck; raises WrongError unless it was in that very call."""
    if status == 0:
        return False
    calls = [call for call in map(call_of, lines) if call not in (None, MARK)]
    checks.must(status == -signal.SIGKILL, f"it ended with {status}, not by the kill")
    checks.must(calls[-1:] == [job.call] and len(calls) == job.at, f"it died in {calls[-1:]}, call {len(calls)}")
    return True


def first_injected(lines: list[str]) -> tuple[str, str, int] | None:
    """Name of the call that failed first, its line, and the operation."""
    operation = 0
    for line in lines:
        if mark := re.search(MARK + r"\(PRIO_PROCESS, (\d+)\)", line):
            operation = int(mark[1])
        elif line.endswith("(INJECTED)"):
            return call_of(line) or "", line, operation
    return None


def plan(bench: Bench, options: argparse.Namespace) -> list[Job]:
    """All jobs, or a sample of them."""
    jobs: list[Job] = []
    chance = random.Random(options.seed)
    counts: dict[str, Counter[str]] = {}
    for kind in [kind for kind in KINDS if options.kind in (None, kind)]:
        of = "recovery" if kind == "recovery" else "script"
        if of not in counts:
            counts[of] = bench.count_calls(of)
        for call, count in sorted(counts[of].items()):
            if call in NEITHER or options.call not in (None, call):
                continue
            if (kind.startswith("E") and call in ONLY_KILLED) or (kind.startswith("ENOSPC") and call not in TAKES_ROOM):
                continue
            indexes = list(range(1, count + 1))
            if options.at:
                indexes = [options.at]
            elif not options.full:
                indexes = sorted(chance.sample(indexes, min(options.sample, count)))
            jobs += [Job(kind, call, at) for at in indexes]
    return jobs


def work(options: argparse.Namespace) -> None:
    """One of the workers: a line of JSON for each job."""
    at, of = map(int, options.shard.split("/"))
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no power is lost: memory will do
    with tempfile.TemporaryDirectory(prefix="pylog-syscalls-", dir=parent) as root:
        bench = Bench(Path(root))
        bench.make_base()
        try:
            jobs = plan(bench, options)
        except CannotTryError as error:
            sys.exit(f"cannot be tried here: {error}")
        # By its words, not by its place: the dry runs of two workers may differ by a call.
        for job in (job for job in jobs if zlib.crc32(str(tuple(job)).encode()) % of == at):
            wrong = None
            try:
                reached = bench.run(job, liar=options.control)
            except Exception as error:
                reached, wrong = True, f"{type(error).__name__}: {error}"
                if not isinstance(error, checks.WrongError):
                    wrong = traceback.format_exc()
            print(json.dumps([*job, reached, wrong]), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--call")
    parser.add_argument("--at", type=int)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = parse(arguments)
    if options.shard:
        work(options)
        return 0
    print(f"seed {options.seed}")
    given = [*(sys.argv[1:] if arguments is None else arguments), "--seed", str(options.seed)]
    begin = time.monotonic()
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, *given, "--shard", f"{i}/{options.jobs}"], stdout=subprocess.PIPE, text=True
        )
        for i in range(options.jobs)
    ]
    done: Counter[tuple[str, str]] = Counter()
    missed = faults = 0
    for worker in workers:
        assert worker.stdout is not None
        for line in worker.stdout:
            kind, call, at, reached, wrong = json.loads(line)
            done[kind, call] += 1
            if not reached:
                missed += 1
                print(f"not reached: {kind} at {call} {at}", flush=True)
            if wrong:
                faults += 1
                print(f"WRONG: {kind} at {call} {at}: {wrong}", flush=True)
        if worker.wait():
            return 2
    for kind in KINDS:
        calls = [f"{call} {count}" for (of, call), count in sorted(done.items()) if of == kind]
        if calls:
            print(f"{kind}: {sum(n for (of, _), n in done.items() if of == kind)} runs: {', '.join(calls)}")
    seconds = time.monotonic() - begin
    runs = sum(done.values())
    print(f"{runs} runs in {seconds:.0f} s, {missed} did not come to their call, {faults} wrong")
    return int(faults > 0 or missed > max(3, runs // 50))  # the number of futex calls, for one, is not fixed


if __name__ == "__main__":
    sys.exit(main())
