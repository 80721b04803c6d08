"""Fixtures for all tests."""

import os
import tarfile
from pathlib import Path

import pytest

# Programs that tests start in the checkout import the pylog that is tested, not the sources, which are not compiled.
os.environ["PYTHONSAFEPATH"] = "1"

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real broker wrote, unpacked: clean/, killed/, expected/, dump/. Shared by all tests, so copy from it."""
    root = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "kafka-4.3.1.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root
