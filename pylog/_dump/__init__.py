"""`pylog dump`: what Kafka's kafka-dump-log prints, byte for byte, and the same as JSON.

What it prints for damaged files follows Kafka too, except where Kafka ends with a stack trace: then one sentence goes
to stderr, and the next file follows.
"""

import os
import re
import sys
from pathlib import Path, PurePath

from pylog._errors import PylogError

from . import checkpoint
from .index_files import Complaints, dump_aborted_index, dump_offset_index, dump_time_index
from .log_file import dump_log
from .options import Options, parse_options
from .output import BrokenFileError, Output
from .snapshot import dump_snapshot

__all__ = ["main"]

LOG_SUFFIXES = (".log", ".checkpoint")
SUFFIXES = (*LOG_SUFFIXES, ".index", ".timeindex", ".txnindex", ".snapshot")


def main(arguments: list[str]) -> int:
    """Run `pylog dump` with `arguments`; returns the exit code: 0, 1 a problem was found, 2 usage."""
    try:
        options = parse_options(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    output = Output(as_json=options.as_json)
    try:
        _dump_all(options, output)
        output.flush()
    except BrokenPipeError:
        # The reader has seen enough, as head does; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 1 if output.problem_found else 0


def _dump_all(options: Options, output: Output) -> None:
    complaints = Complaints({}, {}, {}, {})
    jumps: dict[str, dict[int, int]] = {}
    for path in _expand(options.files):
        output.file = path
        output.text(f"Dumping {path}\n")
        try:
            _dump_file(path, options, output, complaints, jumps)
        except OSError as error:
            output.complain(f"{path}: {error.strerror or error}" if not error.filename else _os_message(error))
        except (BrokenFileError, PylogError) as error:
            output.complain(str(error))
    complaints.report(output)
    for path, pairs in jumps.items():
        lines = [f"  {a} is followed by {b}" for a, b in sorted(pairs.items())]
        output.remark(f"Non-consecutive offsets in {path}", *lines)


def _os_message(error: OSError) -> str:
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def _expand(paths: list[str]) -> list[str]:
    """Paths as Java writes them, directories replaced by the files in them that can be shown."""
    files = []
    for path in paths:
        path = re.sub("/+", "/", path)
        path = path.rstrip("/") or "/"
        if Path(path).is_dir():
            names = sorted(entry.name for entry in Path(path).iterdir() if entry.is_file() and _is_known(entry.name))
            files += [f"{path.rstrip('/')}/{name}" for name in names]
        else:
            files.append(path)
    return files


def _is_known(name: str) -> bool:
    return name in checkpoint.NAMES or name.endswith(SUFFIXES)


def _dump_file(
    path: str, options: Options, output: Output, complaints: Complaints, jumps: dict[str, dict[int, int]]
) -> None:
    name = PurePath(path).name
    suffix = PurePath("x" + name).suffix
    if name in checkpoint.NAMES:
        checkpoint.dump_checkpoint(path, output)
    elif suffix in LOG_SUFFIXES:
        if found := dump_log(path, options, output):
            jumps[str(Path(path).absolute())] = found
    elif suffix == ".index":
        dump_offset_index(path, options, output, complaints)
    elif suffix == ".timeindex":
        dump_time_index(path, options, output, complaints)
    elif suffix == ".snapshot":
        dump_snapshot(path, output)
    elif suffix == ".txnindex":
        dump_aborted_index(path, output)
    else:
        output.remark(f"Ignoring unknown file {path}")
