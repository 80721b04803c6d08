"""A command from README.md, word for word: what CI runs is what a reader runs.

python tools/readme_command.py pytest   prints the first code block of README.md that has this word
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def command(word: str, text: str) -> str | None:
    """The first fenced code block with `word` in it, without prompts; None where there is none."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M):
        if re.search(rf"\b{re.escape(word)}\b", block):
            return re.sub(r"^\$ ", "", block, flags=re.M).strip()
    return None


def main() -> int:
    """Print the command that the argument names."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = command(sys.argv[1], README.read_text())
    if found is None:
        sys.stderr.write(f"{README}: no code block has {sys.argv[1]!r}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
