"""Showing the small text files, which kafka-dump-log does not know; so their form is our own, in its manner.

*-offset-checkpoint      0, count, then "topic partition offset" a line
leader-epoch-checkpoint  0, count, then "epoch startOffset" a line
partition.metadata       version: 0, topic_id: 22 characters
meta.properties          key=value a line, comments with #
.kafka_cleanshutdown     JSON: version, brokerEpoch
"""

import json
import re
from pathlib import Path

from .output import BrokenFileError, Output

OFFSET_CHECKPOINTS = frozenset(
    f"{name}-offset-checkpoint" for name in ("recovery-point", "replication", "log-start", "cleaner")
)
EPOCH_CHECKPOINT = "leader-epoch-checkpoint"
SETTINGS = {"partition.metadata": ":", "meta.properties": "="}
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
NAMES = OFFSET_CHECKPOINTS | SETTINGS.keys() | {EPOCH_CHECKPOINT, CLEAN_SHUTDOWN}

OFFSET_LINE = re.compile(r"(\S+)\s+(\d+)\s+(-?\d+)", re.ASCII)
EPOCH_LINE = re.compile(r"(\d+)\s+(-?\d+)", re.ASCII)


def dump_checkpoint(path: str, output: Output) -> None:
    """Show one of the files called `NAMES`.

    Raises:
        BrokenFileError: it is not of its form.
    """
    name = Path(path).name
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFileError(f"{path}: not UTF-8, at byte {error.start}") from error
    if name == CLEAN_SHUTDOWN:
        _show_clean_shutdown(path, text, output)
    elif name in SETTINGS:
        _show_settings(path, text, SETTINGS[name], output)
    elif name == EPOCH_CHECKPOINT:
        for epoch, start in rows(path, text, EPOCH_LINE):
            output.text(f"epoch: {epoch} startOffset: {start}\n")
            output.item("epoch", epoch=int(epoch), startOffset=int(start))
    else:
        for topic, partition, offset in rows(path, text, OFFSET_LINE):
            output.text(f"topic: {topic} partition: {partition} offset: {offset}\n")
            output.item("checkpoint", topic=topic, partition=int(partition), offset=int(offset))


def rows(path: str, text: str, form: re.Pattern[str]) -> list[tuple[str, ...]]:
    """The lines of a checkpoint's text, their fields apart.

    Raises:
        BrokenFileError: it is not of its form.
    """
    lines = text.splitlines()
    if len(lines) < 2 or not lines[1].isdecimal():
        raise BrokenFileError(f"{path}: does not begin with a version and a count")
    if lines[0] != "0":
        raise BrokenFileError(f"{path}: version {lines[0]!r}, 0 is known")
    rows = []
    for number, line in enumerate(lines[2:], 3):
        found = form.fullmatch(line)
        if not found:
            raise BrokenFileError(f"{path}: line {number}, {line!r}, has not the form of the others")
        rows.append(found.groups())
    if len(rows) != int(lines[1]):
        raise BrokenFileError(f"{path}: {lines[1]} entries stated, {len(rows)} present")
    return rows


def _show_settings(path: str, text: str, separator: str, output: Output) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, found, value = line.partition(separator)
        if not found:
            raise BrokenFileError(f"{path}: line {number}, {line!r}, has no {separator!r}")
        output.text(f"{key.strip()}: {value.strip()}\n")
        output.item("setting", key=key.strip(), value=value.strip())


def _show_clean_shutdown(path: str, text: str, output: Output) -> None:
    # Before Kafka 3.7 the file was empty: being there was all it said.
    try:
        fields = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise BrokenFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BrokenFileError(f"{path}: not a JSON object")
    output.text("clean shutdown" + "".join(f" {key}: {value}" for key, value in fields.items()) + "\n")
    output.item("cleanShutdown", **{key: value for key, value in fields.items() if key not in ("kind", "file", "type")})
