"""The examples in README.md and docs/*.md do what the pages say.

A ```python block with >>> prompts is a doctest; a program that imports pylog is run; a fragment must compile.
A ```console block whose commands are all `pylog dump` is run, and must print what stands below them. The blocks of a
page share one directory, in their order.
"""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from pylog import cli

ROOT = Path(__file__).parents[2]
PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if path.exists()]
BLOCK = re.compile(r"^```(python|pycon|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def run_pylog(command: str) -> None:
    """Run a pylog command in this process and print what it prints."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed):
        code = cli.main(shlex.split(command)[1:])
    assert code == 0
    printed.seek(0)
    print(printed.read(), end="")


def run_program(source: str) -> None:
    """Run a whole program; what it prints is its own affair."""
    with contextlib.redirect_stdout(io.StringIO()):
        exec(source, {"__name__": "__main__"})


def console_examples(block: str, line: int) -> list[doctest.Example]:
    """The block's commands as doctest examples; none where it does more than look."""
    commands = COMMAND.findall(block)
    if not all(command.startswith("pylog dump ") and "|" not in command for command, _ in commands):
        return []
    return [doctest.Example(f"run_pylog({command!r})\n", printed, lineno=line) for command, printed in commands]


def page_examples(page: Path) -> list[doctest.Example]:
    """The page's examples, in their order."""
    text = page.read_text("utf-8")
    examples: list[doctest.Example] = []
    for found in BLOCK.finditer(text):
        kind, block = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        if kind == "console":
            examples += console_examples(block, line)
        elif ">>>" not in block:
            compile(block, f"{page.name}, line {line}", "exec")
            if re.search("^import pylog", block, re.MULTILINE):
                examples.append(doctest.Example(f"run_program({block!r})\n", "", lineno=line))
        else:
            for example in doctest.DocTestParser().get_examples(block):
                example.lineno += line
                examples.append(example)
    return examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_on_the_page_do_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = page_examples(page)
    names = {"run_pylog": run_pylog, "run_program": run_program}
    test = doctest.DocTest(examples, names, page.name, str(page), 0, None)
    complaints = io.StringIO()
    # Lines end in "..." where the rest differs from run to run.
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=complaints.write)
    assert result.failed == 0, complaints.getvalue()


def test_the_tutorial_has_examples_that_are_run() -> None:
    examples = page_examples(ROOT / "docs" / "tutorial.md")
    assert len(examples) > 30
    assert any("run_pylog" in example.source for example in examples)


def test_a_wrong_example_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "wrong.md"
    page.write_text("text\n\n```python\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match=r"(?s)Expected:.*3.*Got:.*2"):
        test_examples_on_the_page_do_what_it_says(page, tmp_path, monkeypatch)
