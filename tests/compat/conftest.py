"""Fixtures of the compatibility tests: the golden data directories, opened once, without a write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pylog

from . import kafka
from .golden import SIDES


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests."""
    config.addinivalue_line("markers", "broker: needs java and mvn, and starts a real Kafka broker")


@pytest.fixture(scope="session")
def golden_logs(golden: Path) -> Iterator[dict[str, pylog.Log]]:
    """Both golden data directories, opened read_only."""
    logs = {side: pylog.open(golden / side, read_only=True) for side in SIDES}
    yield logs
    for log in logs.values():
        log.close()


@pytest.fixture(scope="session")
def broker_tools() -> None:
    """Kafka's jars are there; skips where they cannot be run."""
    reason = kafka.missing()
    if reason is not None:
        pytest.skip(reason)
    kafka.jars()
