"""How the demo prints: plain text in 80 columns, whatever bytes it shows and wherever it goes."""

import sys
import textwrap
import unicodedata
from collections.abc import Sequence

COLUMNS = 80
INDENT = "   "


def say(text: str = "") -> None:
    """Print a line; what the output's encoding does not have becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def heading(number: int, text: str, code: str) -> None:
    """Begin a step: what it does, and the calls that do it."""
    say()
    say(f"{number}. {text}")
    say(f"{INDENT}{code}")
    say()


def explain(text: str) -> None:
    """Print a paragraph, indented and filled."""
    say(textwrap.fill(text, COLUMNS, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> None:
    """Print aligned columns; alignment has < or > for each."""
    widths = [max(columns_of(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    for row in [titles, *rows]:
        cells = []
        for cell, width, side in zip(row, widths, alignment, strict=True):
            fill = " " * (width - columns_of(cell))
            cells.append(cell + fill if side == "<" else fill + cell)
        say((INDENT + "  ".join(cells)).rstrip())


def columns_of(text: str) -> int:
    """How many columns a terminal takes for it."""
    return sum(_columns_of_character(character) for character in text)


def _columns_of_character(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shown(data: bytes, columns: int) -> str:
    """Bytes as text that fits: no control character reaches the terminal."""
    # A character takes at most four bytes, a combining one none of the columns: some slack, and no megabytes.
    text = data[: 8 * columns + 8].decode("utf-8", "replace").replace("\t", " ")
    text = "".join(character if character.isprintable() else "?" for character in text)
    if columns_of(text) <= columns:
        return text
    while columns_of(text) > columns - 3:
        text = text[:-1]
    return text + "..."


def counted(count: int, what: str) -> str:
    """A number and its noun, in the singular where it is one."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def rate(records: int, seconds: float) -> str:
    """Records a second, to three digits."""
    return f"{float(f'{records / max(seconds, 1e-9):.3g}'):,.0f} records/s"
