"""The directories that this process's clients have open: one Log each, opened by the first and closed by the last."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

from .. import _native
from .. import open as open_log
from .._log import Log
from .errors import KafkaConfigurationError

_lock = threading.Lock()
_open: dict[str, _Shared] = {}
SERVER = re.compile(r"(localhost|\[[0-9a-fA-F:]+\]|[\w.-]+:\d+|\w+://.*)")


class _Shared:
    """A Log and how many clients use it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.clients = 0


def directory_of(bootstrap_servers: Any) -> str:
    """The directory that the option names.  Raises KafkaConfigurationError for servers, and for several names."""
    names = bootstrap_servers if isinstance(bootstrap_servers, list | tuple | set) else [bootstrap_servers]
    if len(names) != 1 or not isinstance(next(iter(names)), str | os.PathLike):
        raise KafkaConfigurationError(f"bootstrap_servers must name one directory, not {bootstrap_servers!r}")
    name = str(os.fspath(next(iter(names))))
    if SERVER.fullmatch(name) and not Path(name).is_dir():
        raise KafkaConfigurationError(f"bootstrap_servers must name a directory; {name!r} looks like a server")
    return os.path.realpath(name)


def acquire(bootstrap_servers: Any) -> Log:
    """The directory's Log, for one more client.  Raises what pylog.open does."""
    path = directory_of(bootstrap_servers)
    with _lock:
        shared = _open.get(path)
        if shared is None:
            shared = _open[path] = _Shared(open_log(path))
        shared.clients += 1
        return shared.log


def release(log: Log) -> None:
    """One client less; the last one closes the Log."""
    with _lock:
        for path, shared in list(_open.items()):
            if shared.log is log:
                shared.clients -= 1
                if shared.clients > 0:
                    return
                del _open[path]
                break
        else:
            return
    log.close()  # not under the lock: callbacks of its producers may make clients


def _forget_in_child() -> None:
    """After a fork: the parent's handles are no use here, and another thread may hold the lock."""
    global _lock
    _lock = threading.Lock()
    _open.clear()


_native.at_fork(_forget_in_child)
