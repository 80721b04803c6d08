"""Runs what CI runs, in named steps, with the programs of the Python that runs it.

python tools/ci.py                      all steps
python tools/ci.py --only lint,types    some
python tools/ci.py --skip tests,fuzz    all but some
python tools/ci.py --list               what there is
python tools/ci.py --needs              the Python packages that the steps need, one a line, for `pip install -r`

A step that fails does not keep the others from running; the exit status is then 1. pylog itself must be installed for
the steps that import it (pip install '.[test]', or built in place and found by PYTHONPATH).
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
C_TESTS = ROOT / "tests" / "c"
C_SOURCES = ("csrc/*.[ch]", "csrc/python/*.[ch]", "tests/c/*.[ch]", "tests/crash/*.[ch]", "benchmarks/*.c")
C_WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
# -P: the checkout, which has no compiled modules, must not stand before the installed package.
PYTHON = (sys.executable, "-P")
SANITIZERS = "address,undefined"
# Python itself keeps memory until it ends, and its libraries leak at exit.
SANITIZER_OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


class StepFailedError(Exception):
    """A command of a step failed; the text names it."""


class StepSkippedError(Exception):
    """A step cannot run here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the steps run."""

    fuzz_seconds: int
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step; problem is empty where it passed."""

    name: str
    seconds: float
    word: str
    problem: str = ""


def run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in the checkout and raise StepFailedError unless it succeeds."""
    shown = " ".join(command)
    _say(f"$ {shown if len(shown) < 300 else shown[:300] + ' ...'}")
    started = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)
    if started.returncode != 0:
        raise StepFailedError(f"exit status {started.returncode}: {shown[:200]}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tool(name: str) -> str:
    """A program beside this Python, else one on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise StepFailedError(f"{name} is not installed: pip install -r <(python tools/ci.py --needs)")
    return found


def _needs_compiler(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise StepSkippedError(f"{name} is not installed (apt-get install {name})")
    return found


def _files(*patterns: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def lint(_: Options) -> None:
    """ruff check and format, clang-format, layers, house rules"""
    failures: list[str] = []
    for command in (
        (_tool("ruff"), "check"),
        (_tool("ruff"), "format", "--check"),
        (_tool("clang-format"), "--dry-run", "-Werror", *_files(*C_SOURCES)),
        (*PYTHON, "tools/check_layers.py"),
        (*PYTHON, "tools/tidy.py"),
    ):
        try:
            run(*command)
        except StepFailedError as error:
            failures.append(str(error))
    if failures:
        raise StepFailedError("; ".join(failures))


def types(_: Options) -> None:
    """mypy --strict over the package, the benchmarks, the tools, and a user's program"""
    run(*PYTHON, "-m", "mypy", "--strict", "-p", "pylog", "-p", "benchmarks")
    run(*PYTHON, "-m", "mypy", "--strict", "tools", "tests/typing")


def _make(target: str, options: Options, *variables: str) -> None:
    run("make", "-C", str(C_TESTS), f"-j{options.jobs}", target, *variables)


def c(options: Options) -> None:
    """the C tests by gcc and by clang, the extension module's sources by both, warnings are errors"""
    missing = [name for name in ("gcc", "clang") if shutil.which(name) is None]
    for compiler in ("gcc", "clang"):
        if compiler in missing:
            continue
        include = sysconfig.get_paths()["include"]
        flags = (*C_WARNINGS, "-Wno-unused-parameter", "-std=gnu11", "-fsyntax-only", "-Icsrc", "-isystem", include)
        run(compiler, *flags, *_files("csrc/python/*.c"))
        _make("check", options, f"CC={compiler}", f"BUILD={BUILD / f'c-{compiler}'}")
    if missing:
        raise StepSkippedError(f"not by {', '.join(missing)}, which is not installed")


def asan(options: Options) -> None:
    """the C tests under the address sanitizer"""
    _make("asan", options)


def ubsan(options: Options) -> None:
    """the C tests under the undefined behaviour sanitizer, -fno-wrapv"""
    _make("ubsan", options)


def tsan(options: Options) -> None:
    """the C tests under the thread sanitizer"""
    # With many random bits in its addresses a system places mappings where the sanitizer keeps its own memory.
    fixed = ("setarch", "-R")
    allowed = shutil.which("setarch") and subprocess.run([*fixed, "true"], stderr=subprocess.DEVNULL).returncode == 0
    _make("tsan", options, *([f"RUNNER={' '.join(fixed)}"] if allowed else []))


def fuzz(options: Options) -> None:
    """each fuzzer for --fuzz-seconds from its seeds, under the address and undefined behaviour sanitizers"""
    _needs_compiler("clang")
    _make("fuzz", options, f"FUZZ_SECONDS={options.fuzz_seconds}")


def tests(_: Options) -> None:
    """all of pytest"""
    run(*PYTHON, "-m", "pytest")


def pysan(_: Options) -> None:
    """most of tests/unit with the extension modules built under the address and undefined behaviour sanitizers"""
    gcc = _needs_compiler("gcc")
    built = BUILD / "sanitized"
    shutil.rmtree(built, ignore_errors=True)
    run(
        sys.executable,
        "setup.py",
        "--quiet",
        "build",
        f"--build-base={built}",
        f"--build-lib={built / 'lib'}",
        environment={"PYLOG_SANITIZE": SANITIZERS, "CC": gcc},
    )
    asked = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **SANITIZER_OPTIONS,
        "LD_PRELOAD": str(Path(asked.stdout.strip()).resolve()),
        "PYTHONPATH": str(built / "lib"),
        "PYTHONMALLOC": "malloc",  # else the sanitizer does not see where Python's objects end
    }
    _print_package(environment)
    # A sanitizer's shadow counts as memory, so that tests which measure memory say nothing here; asyncio's and
    # kafka-python's names, workers, tools and what Ctrl-C interrupts are Python over what the others call, and mypy is
    # not ours.
    left_out = "little_memory or mypy or aio or kafka or test_workers or test_tools or test_interrupts"
    chosen = ("-k", f"not ({left_out})", "tests/unit")
    run(*PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, environment=environment)


def bench(_: Options) -> None:
    """the benchmarks run to their end on a small workload; no figure is judged"""
    start = "import runpy, sys; sys.path.append('.'); runpy.run_module('benchmarks.bench_engine', run_name='__main__')"
    run(*PYTHON, "-c", start, "--records", "2000", "--rounds", "1")
    run("make", "-C", str(C_TESTS), "bench")


def _print_package(environment: Mapping[str, str] | None = None) -> None:
    """Say which pylog the tests import."""
    run(*PYTHON, "-c", "import pylog, pylog._core; print('pylog is', pylog.__file__)", environment=environment)


STEPS: dict[str, Callable[[Options], None]] = {
    step.__name__: step for step in (lint, types, c, asan, ubsan, tsan, fuzz, pysan, tests, bench)
}


def perform(name: str, options: Options) -> Outcome:
    """Run one step and say how it went."""
    step = STEPS[name]
    _say(f"\n=== {name}: {step.__doc__}")
    begun = time.monotonic()
    word, problem = "passed", ""
    try:
        step(options)
    except StepFailedError as error:
        word, problem = "FAILED", str(error)
    except StepSkippedError as error:
        word, problem = "SKIPPED", str(error)
    outcome = Outcome(name=name, seconds=time.monotonic() - begun, word=word, problem=problem)
    _say(_line(outcome))
    return outcome


def _line(outcome: Outcome) -> str:
    reason = f"  {outcome.problem}" if outcome.problem else ""
    return f"--- {outcome.name:<8}{outcome.word:<9}{outcome.seconds:7.1f} s{reason}"


def needs() -> list[str]:
    """The Python packages of all steps, beside pylog and its own dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    benchmarks = (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    wanted = [*extras["lint"], *extras["test"], *project["build-system"]["requires"], *benchmarks]
    return [line for line in wanted if line and not line.startswith("#")]


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in STEPS:
            raise argparse.ArgumentTypeError(f"there is no step {name!r}; there are {', '.join(STEPS)}")
    return names


def main() -> int:
    """Run the steps asked for."""
    parser = argparse.ArgumentParser(description="Runs what CI runs.")
    parser.add_argument("--only", type=_names, default=list(STEPS), metavar="STEP,...", help="only these steps")
    parser.add_argument("--skip", type=_names, default=[], metavar="STEP,...", help="not these steps")
    parser.add_argument("--fuzz-seconds", type=int, default=20, metavar="S", help="for each fuzzer (20)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="compilers at a time")
    parser.add_argument("--list", action="store_true", help="print the steps and what they do")
    parser.add_argument("--needs", action="store_true", help="print the Python packages that the steps need")
    arguments = parser.parse_args()
    if arguments.list:
        _say("\n".join(f"{name:<8}{step.__doc__}" for name, step in STEPS.items()))
        return 0
    if arguments.needs:
        _say("\n".join(needs()))
        return 0
    options = Options(fuzz_seconds=arguments.fuzz_seconds, jobs=arguments.jobs)
    outcomes = [perform(name, options) for name in STEPS if name in arguments.only and name not in arguments.skip]
    _say("\n=== summary")
    for outcome in outcomes:
        _say(_line(outcome))
    failed = [outcome.name for outcome in outcomes if outcome.word == "FAILED"]
    _say(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} steps did not fail" + f": {', '.join(failed)}" * bool(failed)
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
