"""The checks of tools/ pass over this checkout, and each finds what it is for."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


check_layers = _tool("check_layers")
tidy = _tool("tidy")
readme_command = _tool("readme_command")
ci = _tool("ci")


def test_every_include_and_import_of_the_checkout_points_downward() -> None:
    found = check_layers.findings(ROOT)
    assert found == [], "\n".join(found)


def test_the_checkout_keeps_the_house_rules() -> None:
    found = tidy.findings(ROOT)
    assert found == [], "\n".join(found)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the checks read, to be spoiled."""
    for name in ("csrc", "pylog"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "_core.c"))
    (tmp_path / "tests" / "c").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "c" / "Makefile", tmp_path / "tests" / "c")
    return tmp_path


LAYER_MISTAKES = [
    ("csrc/record.c", '#include "batch.h"\n', "includes batch.h: record lies not above batch"),
    ("csrc/segment.c", '#include "log.h"\n', "includes log.h: segment lies not above log"),
    ("csrc/batch.c", '#include "pylog.h"\n', "includes pylog.h"),
    ("csrc/batch.c", "#include <stdlib.h>\n", "includes stdlib.h: format files"),
    ("csrc/record.c", "void *f(void) { return malloc(1); }\n", "calls malloc: format files"),
    ("csrc/log.c", "#include <unistd.h>\n", "includes unistd.h: system calls are made in"),
    ("csrc/log.c", "int f(int fd) { return fsync(fd); }\n", "calls fsync: system calls are made in"),
    ("csrc/log.c", "#include <Python.h>\n", "includes Python.h: only csrc/python does"),
    ("csrc/shelf.c", "int shelf;\n", "has no layer"),
    ("csrc/python/bulk.c", '#include "../log.h"\n', "of the engine only the format files"),
    ("pylog/_errors.py", "from . import _native\n", "imports _native: _errors lies not above it"),
    ("pylog/_partition.py", "def f():\n    from ._log import Log\n", "imports _log: _partition lies not above it"),
    ("pylog/_log.py", "from pylog.cli import main\n", "imports cli: _log lies not above it"),
    ("pylog/_log.py", "from . import _core\n", "imports _core: only _native does"),
    ("pylog/_dump/java.py", "from .. import _objects\n", "imports _objects: only _native does"),
    ("pylog/_log.py", "import pylog\n", "imports __init__: _log lies not above it"),
    ("pylog/_shelf.py", "", "has no layer"),
]


@pytest.mark.parametrize(("name", "added", "said"), LAYER_MISTAKES, ids=lambda value: str(value).strip()[:40])
def test_a_broken_layer_is_found(tree: Path, name: str, added: str, said: str) -> None:
    assert check_layers.findings(tree) == []
    with (tree / name).open("a") as file:
        file.write(added)
    found = check_layers.findings(tree)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:")
    assert said in found[0]


def test_comments_strings_and_types_only_imports_break_no_layer(tree: Path) -> None:
    with (tree / "csrc" / "batch.c").open("a") as file:
        file.write('/* malloc(1)\n#include "log.h" */\nconst char *f(void) { return "open(2)"; }\n')
    with (tree / "pylog" / "_errors.py").open("a") as file:
        file.write("if TYPE_CHECKING:\n    from ._log import Log\n")
    assert check_layers.findings(tree) == []


# Put together, so that this file keeps the rule.
MARK = "do".upper().join(["TO", ""])

HOUSE_MISTAKES = [
    ("csrc/log.c", "void f(char *a) { strcpy(a, a); }\n", "strcpy is banned"),
    ("csrc/log.c", f"/* {'x' * 120} */\n", "126 columns"),
    ("csrc/log.c", "int i; \n", "white space at the end"),
    ("csrc/log.c", "\tint i;\n", "a tab"),
    ("csrc/log.c", "int i;", "no newline at the end"),
    ("csrc/log.c", f"/* {MARK} */\n", "a leftover mark"),
    ("csrc/log.c", "int i;\n" * 600, "lines, at most 600"),
    ("pylog/_log.py", "print(1)\n", "print in the package"),
    ("pylog/_log.py", "import time\ntime.sleep(1)\n", "a sleep in the package"),
    ("docs/format.md", "[there](nowhere.md)\n", "link to nowhere.md: there is no such file"),
    ("docs/format.md", "# One\n[there](#two)\n", "link to #two: there is no such heading"),
    ("tests/c/shelf.c", "int i;\n", "is built by no wildcard"),
]


@pytest.mark.parametrize(("name", "added", "said"), HOUSE_MISTAKES, ids=lambda value: str(value).strip()[:40])
def test_a_broken_house_rule_is_found(tree: Path, name: str, added: str, said: str) -> None:
    before = set(tidy.findings(tree))
    (tree / name).parent.mkdir(exist_ok=True)
    with (tree / name).open("a") as file:
        file.write(added)
    found = set(tidy.findings(tree)) - before
    assert len(found) == 1
    assert said in found.pop()


def test_good_links_and_headings_are_found_good(tree: Path) -> None:
    (tree / "docs").mkdir()
    (tree / "docs" / "a.md").write_text(
        "# A `word`, or two\n[b](b.md#one-two) [a](#a-word-or-two) [web](https://x.y/z)\n"
    )
    (tree / "docs" / "b.md").write_text("```sh\n# no heading\n```\n## One two\n![x](../csrc/log.h)\n")
    assert [line for line in tidy.findings(tree) if line.startswith("docs/")] == []


def test_a_command_of_the_readme_is_the_first_block_with_its_word() -> None:
    text = "```sh\nfirst one\n```\nfirst pytest in words\n```\n$ a && \\\n  pytest x\n```\n```\npytest y\n```\n"
    assert readme_command.command("pytest", text) == "a && \\\n  pytest x"
    assert readme_command.command("none", text) is None


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    text = (ROOT / "README.md").read_text()
    for word, last in (("pylog demo", "pylog demo"), ("pytest", "pytest")):
        found = readme_command.command(word, text)
        assert found is not None
        assert "python3 -m venv .venv" in found
        assert found.split("&&")[-1].strip().endswith(last)


def test_ci_lists_every_step_and_refuses_one_it_does_not_have() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "ci.py")]
    listed = subprocess.run([*tool, "--list"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(ci.STEPS)
    refused = subprocess.run([*tool, "--only", "lint,shelf"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "there is no step 'shelf'" in refused.stderr


def test_a_step_that_fails_makes_ci_fail_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        """fails"""
        ci.run(sys.executable, "-c", "raise SystemExit(3)")

    def sound(_: object) -> None:
        """passes"""
        ci.run(sys.executable, "-c", "print('ran')")

    def absent(_: object) -> None:
        """cannot run"""
        raise ci.StepSkippedError("no compiler")

    monkeypatch.setattr(ci, "STEPS", {"broken": broken, "absent": absent, "sound": sound})
    monkeypatch.setattr(sys, "argv", ["ci.py"])
    assert ci.main() == 1
    said = capfd.readouterr().out
    summary = said.split("=== summary")[1]
    assert [line.split()[1:3] for line in summary.splitlines() if line.startswith("---")] == [
        ["broken", "FAILED"],
        ["absent", "SKIPPED"],
        ["sound", "passed"],
    ]
    assert "exit status 3" in summary
    assert "\nran\n" in said
