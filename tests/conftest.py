"""Fixtures for all tests."""

import os
import signal
import tarfile
from pathlib import Path

import pytest

# Programs that tests start in the checkout import the pylog that is tested, not the sources, which are not compiled.
os.environ["PYTHONSAFEPATH"] = "1"

# A shell starts its background jobs with Ctrl-C ignored; what the tests send to themselves and to others must arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real broker wrote, unpacked: clean/, killed/, expected/, dump/. Shared by all tests, so copy from it."""
    root = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "kafka-4.3.1.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root
