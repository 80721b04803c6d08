"""What must hold in a directory after the script of syscalls_script.py was killed, or one of its calls failed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import traceback
import zlib
from pathlib import Path

from syscalls_script import (
    ALL,
    BROKEN,
    DELETED,
    DELETING,
    FAILED,
    ONE,
    OPENED,
    TOPIC,
    TPS,
    Told,
    make_value,
    number_of,
    options,
)

import pylog
from pylog import TopicPartition

NEXT_NUMBER = 1 << 30  # of records that are sent to see whether the log goes on
FILES = re.compile(r"\d{20}\.(log|index|timeindex|txnindex|snapshot)|leader-epoch-checkpoint|partition\.metadata")


class WrongError(Exception):
    """Something that must hold does not."""


def must(holds: bool, wrong: str) -> None:
    """Raise WrongError unless it holds."""
    if not holds:
        raise WrongError(wrong)


def check_reopened(directory: Path, story: list[Told]) -> None:
    """All that was acknowledged is there, once and whole; the log goes on behind it."""
    with pylog.open(directory, **options()) as log:
        for at, tp in enumerate(TPS):
            about = [told for told in story if told.tp == at]
            if tp.topic not in log.topics or tp.partition >= len(log.topics[tp.topic].partitions):
                must(not any(told.kind in (TOPIC, ONE, ALL) for told in about), f"{tp} is lost")
                continue
            _check_partition(log, tp, about)
    with pylog.open(directory, **options()) as log:  # closed cleanly, nothing may have changed
        for at, tp in enumerate(TPS):
            if tp.topic in log.topics and tp.partition < len(log.topics[tp.topic].partitions):
                _check_partition(log, tp, [told for told in story if told.tp == at], 1)


def _check_partition(log: pylog.Log, tp: TopicPartition, about: list[Told], appended_before: int = 0) -> None:
    with log.consumer() as consumer:
        start, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
    read = list(log.read(*tp))
    must([record.offset for record in read] == list(range(start, end)), f"{tp}: offsets have gaps")
    numbers = [number_of(record.value) for record in read]
    must(len(set(numbers)) == len(numbers), f"{tp}: a record is there twice")
    held = {record.offset: zlib.crc32(record.value) for record in read}
    sums = set(held.values())
    deleted, asked = (max((t.offset for t in about if t.kind == kind), default=0) for kind in (DELETED, DELETING))
    must(deleted <= start <= max(asked, deleted), f"{tp}: begins at {start}, deleted were {deleted} or {asked}")
    for told in about:
        if told.kind not in (ONE, ALL) or -1 < told.offset < start:
            continue
        found = told.crc in sums if told.offset < 0 else held.get(told.offset) == told.crc
        must(found, f"{tp}: lost {told}; there are {start} to {end}")
    sent = log.producer(acks="all").send(tp.topic, make_value(NEXT_NUMBER + appended_before), partition=tp.partition)
    must(sent.get().offset == end, f"{tp}: the next record is not at {end}")


def check_acknowledgements(story: list[Told], injected: tuple[str, str, int] | None) -> None:
    """Nothing but errors of pylog's, and after a failed fsync nothing that claims to be on the disk."""
    must(not any(told.kind == BROKEN for told in story), "an error that is none of pylog's")
    if injected is None or injected[0] not in ("fdatasync", "fsync"):
        return
    _, line, operation = injected
    place = re.search(r"/([^/]+)-(\d+)(/\d{20}\.log)?>", line)
    if place is None:
        return  # another file's
    failed = TopicPartition(place[1], int(place[2]))
    made = any(told.kind == TOPIC and TPS[told.tp] == failed and told.operation < operation for told in story)
    if not place[3] and not (made and any(told.kind == OPENED and told.operation < operation for told in story)):
        return  # of a directory, when it was made
    must(any(told.kind == FAILED and told.operation >= operation for told in story), "a failed fsync that nobody tells")
    for told in story:
        if told.kind == OPENED and told.operation > operation:
            break
        if told.kind == ALL and told.operation > operation and TPS[told.tp] == failed:
            raise WrongError(f"{failed}: acknowledged after its fsync had failed: {told}")


def in_child(function: object, *arguments: object) -> None:
    """Run it in a process that then dies of kill -9."""
    child = os.fork()
    if child == 0:
        try:
            assert callable(function)
            function(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    must(os.WIFSIGNALED(status), "opening the directory failed")


def open_only(directory: Path) -> pylog.Log:
    """Open the directory and each partition in it."""
    log = pylog.open(directory, **{**options(), "flush_ms": None})
    for topic in log.topics.values():
        for partition in topic.partitions:
            partition.native.state()
    return log


def hash_files(directory: Path) -> dict[str, str]:
    """The partitions' files, each with a hash of its bytes."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted(directory.glob("*/*"))
        if FILES.fullmatch(path.name)
    }


def check_second_recovery(directory: Path) -> None:
    """Recovery, killed when it is done and run again, leaves the same bytes."""
    in_child(open_only, directory)
    once = hash_files(directory)
    in_child(open_only, directory)
    twice = hash_files(directory)
    must(once == twice, f"a second recovery gives other bytes: {differing(once, twice)}")


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of the files that differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def copy(source: Path, target: Path) -> Path:
    """A copy of a directory, in the place of what was there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
