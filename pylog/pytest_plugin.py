"""pytest fixtures: pylog_log, a log of the test's own, and pylog_kafka, `import kafka` without a broker.

pytest imports this at every start, and pylog with it: a fifth of a second; `-p no:pylog` leaves it out.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pylog import Log


@pytest.fixture
def pylog_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """An open pylog.Log in a directory of its own; closed after the test, which fails if a send failed unseen."""
    import pylog

    log = pylog.open(tmp_path_factory.mktemp("pylog"), flush_ms=None)
    yield log
    with _told("pylog_log"):
        log.close()


@pytest.fixture
def pylog_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What to give as bootstrap_servers; `import kafka`, `from kafka.x import y` give pylog.kafka during the test."""
    import pylog.kafka
    from pylog.kafka import _logs

    found = pkgutil.walk_packages(pylog.kafka.__path__, "pylog.kafka.")
    twins = {
        name.removeprefix("pylog."): importlib.import_module(name)
        for name in ["pylog.kafka", *(module.name for module in found)]
    }
    before = _remove_kafka()
    sys.modules.update(twins)
    directory = str(tmp_path_factory.mktemp("kafka"))
    try:
        yield directory
    finally:
        _remove_kafka()
        sys.modules.update(before)
        log = _logs.acquire(directory)
        try:
            with _told("pylog_kafka"):
                log.close()  # with the clients that the test has left open
        finally:
            _logs.release(log)


def _remove_kafka() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "kafka" or name.startswith("kafka.")]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def _told(fixture: str) -> Iterator[None]:
    """A test that did not look at what its sends came to fails with their error."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised when {fixture} was closed: the test did not look at what its sends came to")
        raise
