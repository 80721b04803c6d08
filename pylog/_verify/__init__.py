"""`pylog verify`: reads every byte of a data directory, tells what is wrong, and with --repair makes the best of it."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from pylog._errors import PylogError

from .check import check
from .findings import Finding, PartitionReport, Report

__all__ = ["main"]

SOUND, DAMAGED, NOT_LOOKED_AT = 0, 1, 2

DESCRIPTION = """\
Read every byte of a data directory, pylog's or a broker's, and tell what is wrong in it: batches by CRC, length and
offsets, records by decoding them, and the files beside the logs by holding them against the logs.
"""

EPILOG = """\
Exit code: 0 sound, 1 damage was found, 2 something could not be looked at (or wrong usage).

The directory may be in use, by pylog or by a broker. Notes are no damage: the torn tail that a crash has left, zero
bytes behind the end, what an interrupted compaction or deletion has left, files of others.

--repair needs the directory for itself. It takes out of the logs what cannot be read, so that all else stays readable
at its offset; an empty batch takes the place of the offsets that are lost, as compaction leaves them. Every byte that
it takes out lies afterwards in a file beside the log, named by the position where it was:
00000000000000000042.log.cut-8192. Indexes, snapshots and checkpoints are made anew. It can be interrupted at any time
and run again. What it prints is what it found; its exit code is that of a second look.

--json prints one object per line: "type" is partition, damage, note or summary.

Examples:
  pylog verify data
  pylog verify data orders payments-3
  pylog verify data --json | grep '"damage"'
  pylog verify data --repair
"""

PARTITION_COLUMNS = ("PARTITION", "SEGMENTS", "BATCHES", "RECORDS", "BYTES", "START", "END", "DAMAGE")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "pylog verify",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="a data directory")
    parser.add_argument("names", nargs="*", metavar="TOPIC|TOPIC-PARTITION", help="only these; default: everything")
    parser.add_argument("--repair", action="store_true", help="take out what is damaged, keeping it beside the log")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="partitions at a time (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, see below")
    return parser


def main(arguments: list[str]) -> int:
    """Run `pylog verify` with `arguments`; returns the exit code: 0 sound, 1 damage found, 2 not looked at."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return _run(options)
    except BrokenPipeError:
        # The reader has seen enough, as head does; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOUND
    except (PylogError, LookupError) as error:
        sys.stderr.write(f"pylog verify: {error.args[0] if isinstance(error, LookupError) else error}\n")
    except OSError as error:
        sys.stderr.write(f"pylog verify: {error.filename or options.directory}: {error.strerror or error}\n")
    return NOT_LOOKED_AT


def _run(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    done: list[str] = []
    if options.repair:
        from .repair import repair

        found, report, done = repair(directory, options.names, options.jobs)
    else:
        found = report = check(directory, options.names, options.jobs)
    write = _write_json if options.json else _write_text
    for line in write(found, report, done):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    for error in report.errors:
        sys.stderr.write(f"pylog verify: {error}\n")
    if report.errors:
        return NOT_LOOKED_AT
    return DAMAGED if report.damage else SOUND


def _row(part: PartitionReport) -> dict[str, Any]:
    return {
        "partition": part.name,
        "segments": len(part.segments),
        "batches": sum(segment.batches for segment in part.segments),
        "records": sum(segment.records for segment in part.segments),
        "bytes": sum(segment.size for segment in part.segments),
        "logStartOffset": part.log_start_offset,
        "logEndOffset": part.log_end_offset,
        "damage": part.damage,
    }


def _all_findings(report: Report) -> list[Finding]:
    return [*report.findings, *(finding for part in report.partitions for finding in part.findings)]


def _write_text(found: Report, after: Report, done: list[str]) -> Iterator[str]:
    rows = [PARTITION_COLUMNS, *(tuple(str(cell) for cell in _row(part).values()) for part in found.partitions)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(PARTITION_COLUMNS))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells)
    for finding in sorted(_all_findings(found), key=lambda finding: not finding.is_damage):
        yield finding.line()
    yield from done
    count = found.damage
    if after is found:
        hint = "; --repair takes out what is damaged and keeps it beside the log" if count else ""
        yield (f"{count} problem{'s' if count != 1 else ''}{hint}" if count else "sound")
        return
    yield f"{count} problem{'s' if count != 1 else ''} before, {after.damage} after the repair"
    yield from (f"still: {finding.line()}" for finding in _all_findings(after) if finding.is_damage)


def _write_json(found: Report, after: Report, done: list[str]) -> Iterator[str]:
    for part in found.partitions:
        yield json.dumps({"type": "partition", **_row(part)})
    for finding in _all_findings(found):
        yield _finding_json(finding)
    for line in done:
        yield json.dumps({"type": "repaired", "message": line})
    if after is not found:
        yield from (_finding_json(finding, after="repair") for finding in _all_findings(after) if finding.is_damage)
    yield json.dumps({"type": "summary", "damage": found.damage, "damageLeft": after.damage, "errors": after.errors})


def _finding_json(finding: Finding, **more: str) -> str:
    fields = asdict(finding)
    names = {"size": "bytes", "first_offset": "firstOffset", "last_offset": "lastOffset"}
    del fields["is_damage"]
    shown = {names.get(name, name): value for name, value in fields.items() if value is not None}
    return json.dumps({"type": "damage" if finding.is_damage else "note", **shown, **more})
