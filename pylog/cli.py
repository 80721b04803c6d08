"""The `pylog` command: a subcommand's module is imported only when it is called."""

import sys
from collections.abc import Callable
from importlib import import_module, metadata

SUBCOMMANDS = {
    "dump": ("pylog._dump", "show the files of a log, as kafka-dump-log does"),
    "verify": ("pylog._verify", "read every byte of a data directory, tell what is damaged, repair it"),
    "demo": ("pylog._demo", "a tour on real text, in a new directory"),
}


def _help() -> str:
    lines = [f"  {name:<8}{what}" for name, (_, what) in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: pylog COMMAND [ARGUMENT...]",
            "",
            *lines,
            "",
            "pylog COMMAND --help tells more. Exit code: 0 fine, 1 a problem was found, 2 usage.",
            "",
            "Examples:",
            "  pylog dump --files data/orders-0/00000000000000000000.log --print-data-log",
            "  pylog dump --json data/orders-0",
            "  pylog verify data",
            "",
        ]
    )


def _version() -> str:
    try:
        return metadata.version("pylog-storage")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(argv: list[str] | None = None) -> int:
    """Run a command line, sys.argv's by default; returns the exit code: 0 fine, 1 a problem was found, 2 usage."""
    arguments = sys.argv[1:] if argv is None else argv
    match arguments:
        case ["--help" | "-h" | "help", *_]:
            sys.stdout.write(_help())
            return 0
        case ["--version", *_]:
            sys.stdout.write(f"pylog {_version()}\n")
            return 0
        case [name, *rest] if name in SUBCOMMANDS:
            run: Callable[[list[str]], int] = import_module(SUBCOMMANDS[name][0]).main
            return run(rest)
        case [name, *_]:
            sys.stderr.write(f"pylog: there is no command {name!r}\n\n{_help()}")
            return 2
    sys.stderr.write(_help())
    return 2
