"""`pylog demo`: produce, consume, replay, columns and dump in one go, on real text, for those who see pylog first."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

import pylog
from pylog._errors import PylogError

from .place import make_directory, pylog_command, python_command
from .report import INDENT, explain, say
from .sources import InputError, Source, default_paths, look_over
from .tally import CheckError
from .tour import TOPIC, Tour

__all__ = ["main"]

DESCRIPTION = """\
Show what pylog does, on real text: produce every line, consume, replay from an
offset and from a time, read columns, dump a file, close and open again. What
comes out is compared with what went in. Nothing that exists is written to."""

EPILOG = """\
Exit code: 0 all is well, 1 what came out is not what went in or the disk
refused, 2 a file or directory that cannot be used.

Examples:
  pylog demo                          text that the machine has: Debian's licenses
  pylog demo notes.txt /var/log/*.log
  pylog demo --data /tmp/demo         write there instead of ./pylog-data
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def main(arguments: list[str]) -> int:
    """Run `pylog demo` with `arguments`; returns the exit code: 0, 1 a check failed or the disk refused, 2 usage."""
    parser = _Parser(
        "pylog demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="text files to use instead of the machine's")
    parser.add_argument("--data", metavar="DIR", help="directory to make and write to (./pylog-data, or a free name)")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        _run([Path(file) for file in options.files], options.data)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as head does; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        return _fail(2, str(error))
    except CheckError as error:
        return _fail(1, f"CHECK FAILED: {error}")
    except (PylogError, OSError) as error:
        return _fail(1, f"{type(error).__name__}: {error}")
    return 0


def _fail(code: int, message: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"pylog demo: {message}\n")
    return code


def _run(files: list[Path], named: str | None) -> None:
    sources = look_over(files or default_paths())
    directory = make_directory(named)
    tour = Tour(sources, directory)
    _introduce(sources, directory)
    with pylog.open(directory) as log:
        tour.produce(log)
        # Known only now that the records have found their partitions.
        dump_command = f"{pylog_command()} dump --print-data-log {shlex.quote(str(tour.segment))}"
        tour.consume(log)
        tour.replay_from_offset(log)
        tour.replay_from_time(log)
        tour.columns(log)
        tour.dump(dump_command)
    tour.reopen()
    _say_what_next(tour, dump_command)


def _introduce(sources: list[Source], directory: Path) -> None:
    places = {str(source.path.parent) for source in sources}
    what = str(sources[0].path) if len(sources) == 1 else f"{len(sources)} files"
    if len(sources) > 1 and len(places) == 1 and places != {"."}:
        what += f" in {places.pop()}"
    say(f"pylog {pylog.__version__}, a tour on real text")
    say()
    say(f"{INDENT}text     {what}")
    say(f"{INDENT}data     {directory.absolute()} (new)")
    say(f"{INDENT}times    of pylog's calls alone, without reading the text and checksums")


def _say_what_next(tour: Tour, dump_command: str) -> None:
    directory = str(tour.directory)
    quoted = shlex.quote(directory)
    say()
    say("All is well: every record came back, every time, as it went in.")
    say()
    say("Where the files lie")
    explain(
        f"{tour.directory.absolute()} has a directory for each partition of topic {TOPIC!r}. In it, .log holds the "
        "records, in the bytes that Kafka itself writes; .index and .timeindex find offsets and times in it."
    )
    say()
    say("What to try next")
    say()
    say(f"{INDENT}{dump_command} | head")
    say(f"{INDENT}{pylog_command()} dump --json {shlex.quote(str(tour.segment.parent))} | head -n 3")
    say(f"{INDENT}{pylog_command()} demo FILE ...        the same with text of yours")
    say()
    say(f"{INDENT}and in Python ({python_command()}):")
    say()
    first = tour.replay_offset
    last = min(first + 3, tour.fullest_count)
    say("import pylog")
    say(f"with pylog.open({directory!r}) as log:")
    say(f'    for record in log.read("{TOPIC}", {tour.fullest.partition}, {first}, {last}): print(record)')
    say()
    say(f"{INDENT}All of this can go: rm -r {quoted}")
