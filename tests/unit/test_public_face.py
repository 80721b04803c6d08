"""What a user's program sees: the names, their documentation, and their types."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pylog

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(pylog.__file__).resolve().parent
USER_PROGRAM = ROOT / "tests" / "typing" / "user_program.py"

# A user's program holds these, but calls no constructor of theirs; their methods are documented all the same.
CLASSES = [value for value in map(pylog.__dict__.get, pylog.__all__) if inspect.isclass(value)]


def _public_methods(owner: type) -> dict[str, object]:
    """What the package itself defines on a class, whatever mixin it comes from."""
    ours = [
        base for base in owner.__mro__ if base.__module__.startswith("pylog") and base.__module__ != "pylog._objects"
    ]
    return {name: value for base in ours for name, value in vars(base).items() if not name.startswith("_")}


def test_all_is_sorted_and_has_no_name_twice() -> None:
    assert list(pylog.__all__) == sorted(set(pylog.__all__))


def test_all_has_every_name_that_the_package_shows() -> None:
    shown = {
        name
        for name, value in vars(pylog).items()
        if not name.startswith("_") and not inspect.ismodule(value) and not isinstance(value, type(os))
    }
    assert shown | {"__version__"} == set(pylog.__all__)


@pytest.mark.parametrize("name", [name for name in pylog.__all__ if name != "__version__"])
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(pylog, name)
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    # What a NamedTuple or a dataclass without a docstring gets.
    assert not own.startswith(f"{name}(")


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: str(owner.__name__))
def test_every_public_method_has_a_docstring(owner: type) -> None:
    callables = {name: value for name, value in _public_methods(owner).items() if callable(value)}
    assert [name for name, value in callables.items() if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("owner", [pylog.Log, pylog.Producer, pylog.Consumer], ids=lambda owner: str(owner.__name__))
def test_a_handle_is_closed_by_with(owner: type) -> None:
    assert {"__enter__", "__exit__", "close"} <= set(dir(owner))


@pytest.mark.parametrize("name", [name for name in pylog.__all__ if name.endswith("Error")])
def test_every_exception_is_a_pylog_error_and_says_whether_to_try_again(name: str) -> None:
    error = getattr(pylog, name)
    assert issubclass(error, pylog.PylogError)
    assert error.retriable is issubclass(error, pylog.RetriableError)


@pytest.mark.parametrize("file", ["py.typed", "_objects.pyi"])
def test_the_types_are_shipped_with_the_package(file: str) -> None:
    assert (PACKAGE / file).is_file()


def test_the_version_is_that_of_the_project_file() -> None:
    assert f'\nversion = "{pylog.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def _outside_of_the_checkout() -> dict[str, str]:
    """An environment in which mypy finds the pylog that is tested; one built in place it has to be told of."""
    environment = {**os.environ}
    if PACKAGE.parent.name not in {"site-packages", "dist-packages"}:
        environment["MYPYPATH"] = str(PACKAGE.parent)
    return environment


def test_a_users_program_passes_mypy_strict(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(USER_PROGRAM)],
        cwd=tmp_path,
        env=_outside_of_the_checkout(),
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_mypy_strict_sees_a_users_mistake(tmp_path: Path) -> None:
    program = tmp_path / "mistaken.py"
    program.write_text('import pylog\n\npylog.open("d", flush_ms="soon").producer(acks=2, lingers_ms=1).send(3)\n')
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        cwd=tmp_path,
        env=_outside_of_the_checkout(),
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 1, checked.stdout + checked.stderr
    for word in ("flush_ms", "acks", "lingers_ms", "send"):
        assert word in checked.stdout


def test_a_users_program_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(USER_PROGRAM), str(tmp_path / "data")], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


def test_a_program_started_in_the_checkout_imports_the_pylog_that_is_tested() -> None:
    asked = subprocess.run(
        [sys.executable, "-c", "import pylog; print(pylog.__file__)"], cwd=ROOT, capture_output=True, text=True
    )
    assert Path(asked.stdout.strip()).resolve().parent == PACKAGE, asked.stderr
