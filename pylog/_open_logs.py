"""The logs that are open in this process: closed when it ends, given up in a forked child."""

import atexit
import sys
from typing import Protocol

from . import _native


class _OpenLog(Protocol):
    url: str

    def close(self) -> None: ...

    def mark_forked(self) -> None: ...


open_logs: set[_OpenLog] = set()


def _close_at_exit() -> None:
    """What is buffered is not lost by forgetting to close; what cannot be written is said aloud."""
    _native.check_fork()
    for log in list(open_logs):
        try:
            log.close()
        except Exception as error:
            sys.stderr.write(f"pylog: closing {log.url} at exit failed: {type(error).__name__}: {error}\n")


def _forget_in_child() -> None:
    for log in list(open_logs):
        log.mark_forked()
    open_logs.clear()


atexit.register(_close_at_exit)
_native.at_fork(_forget_in_child)
