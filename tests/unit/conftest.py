"""Fixtures for the tests of the public face."""

import os
import pickle
import subprocess
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[pylog.Log]:
    """An open log in tmp_path/"data"."""
    with pylog.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def in_child() -> Callable[..., Any]:
    """Run a function in a forked child; its result, or the name and text of its exception."""

    def run(function: Callable[[], Any], fork: Callable[[], int] = os.fork) -> Any:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads alive is what is tested
            # A child that Python does not know to be one would wait for the thread that asks for the GIL just now.
            interval = sys.getswitchinterval()
            sys.setswitchinterval(100)
            pid = fork()
            sys.setswitchinterval(interval)
        if pid == 0:
            try:
                try:
                    result = function()
                except BaseException as error:
                    result = type(error).__name__, str(error)
                os.write(writer, pickle.dumps(result))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        return pickle.loads(data)

    return run


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a new interpreter, in tmp_path."""

    def run(source: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run
