"""House rules that no linter knows: file sizes, banned calls, leftover marks, white space, links of the documents.

python tools/tidy.py [CHECKOUT]   prints what breaks a rule; exit status 1 if anything does. Long files that are still
                                  allowed are listed too.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SOURCE_DIRECTORIES = (".ci", "benchmarks", "csrc", "docs", "pylog", "tests", "tools")
SOURCE_NAMES = ("*.c", "*.h", "*.py", "*.pyi", "*.toml", "*.md", "*.in", "Makefile", ".clang-format", "run")
LINES_LISTED = 400
LINES_MAX = 600
TEST_LINES_MAX = 1000  # one module, one test file
COLUMNS_MAX = 120

BANNED_IN_C = {
    "strcpy": "snprintf or memcpy with a known length",
    "strcat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "atoi": "strtol, which tells what is no number",
    "atol": "strtol, which tells what is no number",
    "strtok": "strtok_r",
}
# These talk to a terminal; the others have callers.
MAY_PRINT = {"cli", "_dump", "_demo"}
# A file lock has no wait that signals interrupt and that ends.
MAY_SLEEP = {"_membership"}
# In two pieces, so that this file keeps its own rule.
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)[^)\n]*\)|!\[[^\]\n]*\]\(([^)\s]+)[^)\n]*\)")


def sources(root: Path) -> list[Path]:
    """Every file that is written by hand."""
    found = {path for pattern in SOURCE_NAMES for path in root.glob(pattern)}
    for directory in SOURCE_DIRECTORIES:
        for pattern in SOURCE_NAMES:
            found.update((root / directory).rglob(pattern))
    made = {root / "pylog" / "_core.c"}
    return sorted(path for path in found - made if path.is_file())


def long_files(root: Path, lines_min: int) -> list[tuple[Path, int]]:
    """Code files with more lines than that."""
    code = [path for path in sources(root) if path.suffix in {".c", ".h", ".py", ".pyi"}]
    counted = [(path, path.read_text().count("\n")) for path in code]
    return [(path, lines) for path, lines in counted if lines > lines_min]


def _text_rules(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end"
    if text.endswith("\n\n"):
        yield text.count("\n"), "blank lines at the end"
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if "\t" in line and path.name != "Makefile":
            yield number, "a tab"
        if LEFTOVER.search(line):
            yield number, "a leftover mark: do it or write an issue"
        if path.suffix in {".c", ".h"} and len(line) > COLUMNS_MAX:
            yield number, f"{len(line)} columns, at most {COLUMNS_MAX}"


def _c_rules(path: Path) -> Iterator[tuple[int, str]]:
    call = re.compile(rf"(?<![\w.>])({'|'.join(BANNED_IN_C)})\s*\(")
    for number, line in enumerate(path.read_text().split("\n"), 1):
        for found in call.finditer(line):
            yield number, f"{found[1]} is banned: use {BANNED_IN_C[found[1]]}"


def _package_rules(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    own = path.relative_to(package).with_suffix("").parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "print" and own not in MAY_PRINT:
            yield node.lineno, "print in the package: raise, warn, or write to sys.stderr"
        if called in {"time.sleep", "sleep"} and own not in MAY_SLEEP:
            yield node.lineno, "a sleep in the package: wait for what is to happen"


def _anchors(text: str) -> set[str]:
    """The names that a document's headings have in links."""
    headings = re.findall(r"^#+ +(.*?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _link_rules(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().split("\n"), 1):
        for found in LINK.finditer(line):
            target = found[1] or found[2]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            to = path.parent / name if name else path
            if not to.exists():
                yield number, f"link to {target}: there is no such file"
            elif anchor and to.suffix == ".md" and anchor not in _anchors(to.read_text()):
                yield number, f"link to {target}: there is no such heading"


def _makefile_rules(root: Path) -> Iterator[str]:
    """Every C test is built: the Makefile takes tests and fuzzers by wildcard, so a name must fit one."""
    makefile = root / "tests" / "c" / "Makefile"
    if not makefile.is_file():
        return
    text = makefile.read_text()
    for wildcard in ("test_*.c", "fuzz_*.c"):
        if f"$(wildcard {wildcard})" not in text:
            yield f"tests/c/Makefile:1: does not take {wildcard} by wildcard"
    for path in sorted((root / "tests" / "c").glob("*.c")):
        if not path.name.startswith(("test_", "fuzz_")):
            yield f"tests/c/{path.name}:1: is built by no wildcard of the Makefile: name it test_ or fuzz_"


def findings(root: Path = ROOT) -> list[str]:
    """Everything that breaks a rule, as `file:line: what`."""
    found: list[str] = []

    def add(path: Path, problems: Iterator[tuple[int, str]]) -> None:
        found.extend(f"{path.relative_to(root)}:{number}: {what}" for number, what in problems)

    for path in sources(root):
        add(path, _text_rules(path))
        if path.suffix in {".c", ".h"}:
            add(path, _c_rules(path))
        if path.suffix == ".md":
            add(path, _link_rules(path))
        if path.suffix == ".py" and (root / "pylog") in path.parents:
            add(path, _package_rules(path, root / "pylog"))
    found.extend(_makefile_rules(root))
    found.extend(
        f"{path.relative_to(root)}:1: {lines} lines, at most {LINES_MAX}"
        for path, lines in long_files(root, LINES_MAX)
        if "tests" not in path.parts or lines > TEST_LINES_MAX
    )
    return found


def main() -> int:
    """Print the findings, and the files that ask for a second look."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    found = findings(root)
    for path, lines in long_files(root, LINES_LISTED):
        sys.stdout.write(f"note: {path.relative_to(root)} has {lines} lines; what does it hide?\n")
    sys.stdout.write("".join(f"{line}\n" for line in found) or "tidy: every rule is kept\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
