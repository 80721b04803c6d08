"""Where the demo writes, and how the commands that it recommends are to be typed here."""

import shlex
import shutil
import sys
from pathlib import Path

from .sources import InputError

DEFAULT_NAME = "pylog-data"
NAMES_MAX = 1000


def make_directory(named: str | None) -> Path:
    """Make the data directory: the one named, else ./pylog-data, or pylog-data-2 and so on where that is taken.

    Raises:
        InputError: it cannot be made, or there is something in it.
    """
    if named is None:
        return _make_free_one()
    path = Path(named)
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_taken = any(path.iterdir())
    except FileExistsError:
        raise InputError(f"{path}: is a file; --data names a directory that is new or empty") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}") from error
    if is_taken:
        raise InputError(f"{path}: there is something in it; --data names a directory that is new or empty")
    return path


def _make_free_one() -> Path:
    for number in range(1, NAMES_MAX):
        path = Path(DEFAULT_NAME if number == 1 else f"{DEFAULT_NAME}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"{path.absolute()}: cannot be made: {error.strerror}; name another place with --data DIR"
            ) from error
        return path
    raise InputError(f"{DEFAULT_NAME} to {DEFAULT_NAME}-{NAMES_MAX - 1} are all taken; name a place with --data DIR")


def pylog_command() -> str:
    """What calls the pylog command that runs now, from this directory's shell."""
    called = Path(sys.argv[0])
    if called.name != "pylog":
        return f"{python_command()} -m pylog"
    if _is_on_path("pylog", called):
        return "pylog"
    return _quoted(called)


def python_command() -> str:
    """What calls the Python that runs now."""
    for name in ("python3", "python"):
        if _is_on_path(name, Path(sys.executable)):
            return name
    return _quoted(Path(sys.executable))


def _quoted(program: Path) -> str:
    here = Path.cwd()
    short = program.relative_to(here) if program.is_relative_to(here) else program
    # Without a slash, the shell would look for it on PATH.
    return shlex.quote(str(short) if "/" in str(short) else f"./{short}")


def _is_on_path(name: str, program: Path) -> bool:
    # Links are not followed: a virtual environment's python3 is a link to the system's, and not the same to imports.
    found = shutil.which(name)
    return found is not None and Path(found).absolute().parent == program.absolute().parent
