"""Forked children: what they tell by a pipe, how they are answered, and how they end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from powercut_child import Teller
from powercut_model import MESSAGE, LossError, Message

LOSS_STATUS, ERROR_STATUS = 4, 5

# Set by SIGINT and SIGTERM.  An exception at any moment could leave a child that nobody knows, and the mount with it.
interruption = threading.Event()


def note_signals() -> None:
    """From here on, SIGINT and SIGTERM set `interruption`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interruption.set())


@dataclass
class Child:
    """A forked process, the pipe it tells by, the pipe it is answered by, and where its last words are."""

    pid: int
    told_fd: int
    answer_fd: int
    words_fd: int
    rest: bytes = b""
    ended: bool = False
    last_words: str = ""

    def read(self, seconds: float) -> list[Message]:
        """What it has told, waiting so long for the first of it, or less.  An interruption is raised while waiting."""
        if seconds > 0 and interruption.is_set():
            raise KeyboardInterrupt
        if self.ended or not select.select([self.told_fd], [], [], min(max(seconds, 0), 0.2))[0]:
            return []
        data = os.read(self.told_fd, 1 << 20)
        self.ended = not data
        data = self.rest + data
        whole = len(data) - len(data) % MESSAGE.size
        self.rest = data[whole:]
        return [Message(*fields) for fields in MESSAGE.iter_unpack(data[:whole])]

    def drain(self) -> Iterator[Message]:
        """All that is in the pipe now."""
        while messages := self.read(0):
            yield from messages

    def go_on(self) -> None:
        """Answer VERIFIED."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.answer_fd, b"g")

    def reap(self) -> int:
        """Kill it; its exit status, negative for a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Close the pipes, keep what it wrote to stderr."""
        self.last_words = os.pread(self.words_fd, 1 << 16, 0).decode(errors="replace").strip()
        for fd in (self.told_fd, self.answer_fd, self.words_fd):
            os.close(fd)


def fork(body: Callable[[Teller, int], None]) -> Child:
    """Run body in a child process."""
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
    words = os.memfd_create("pylog power cuts, last words", os.MFD_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(told_write)
        os.close(answer_read)
        return Child(pid, told_read, answer_write, words)
    status = ERROR_STATUS
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(told_read)
        os.close(answer_write)
        os.dup2(words, 2)
        body(Teller(told_write), answer_read)
        status = 0
    except LossError as error:
        os.write(2, str(error).encode())
        status = LOSS_STATUS
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)  # nothing of the parent's, and no closing of the log, on the way out
