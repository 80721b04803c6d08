"""The whole directory: its partitions looked at in parallel."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pylog._errors import PylogError
from pylog._types import TopicPartition

from .findings import PartitionReport, Report
from .partition import ChangedError, PartitionCheck, Passed
from .place import Place
from .progress import Progress

TRIES_MAX = 5


def choose(place: Place, wanted: Sequence[str]) -> list[TopicPartition]:
    """The partitions that are meant by names of topics and of partitions; all of them where there are no names.

    Raises:
        LookupError: there is none of that name.
    """
    if not wanted:
        return place.partitions
    chosen: set[TopicPartition] = set()
    for name in wanted:
        found = {tp for tp in place.partitions if name in (tp.topic, f"{tp.topic}-{tp.partition}")}
        if not found:
            raise LookupError(f"{place.path} has no topic or partition {name!r}")
        chosen |= found
    return sorted(chosen)


def check(path: Path, wanted: Sequence[str], jobs: int, *, alone: bool = False) -> Report:
    """Verify a data directory.  alone: the caller holds it for itself.

    Raises:
        LookupError: something was asked for that is not there.
        OSError: the directory cannot be looked at.
    """
    place = Place(path, alone=alone)
    partitions = choose(place, wanted)
    if not wanted:
        place.look_around()
    sizes = {tp: _log_bytes(place.directory.partition_path(tp)) for tp in partitions}
    with Progress(sum(sizes.values())) as progress, ThreadPoolExecutor(max(1, jobs)) as pool:
        # The largest first: the last thread is then not the only one at work for long.
        order = sorted(partitions, key=lambda tp: -sizes[tp])
        running = {tp: pool.submit(_check_partition, place, tp, progress.passed) for tp in order}
        try:
            place.report.partitions = [running[tp].result() for tp in partitions]
        except BaseException:
            progress.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    return place.report


def _log_bytes(path: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(path) if re.fullmatch(r"\d{20}\.log", entry.name))


def _check_partition(place: Place, tp: TopicPartition, passed: Passed) -> PartitionReport:
    seen: set[object] = set()
    for tries in range(TRIES_MAX):
        partition = PartitionCheck(place, tp, passed)
        try:
            report = partition.run()
        except ChangedError as error:
            if tries + 1 == TRIES_MAX:
                partition.report.error = f"{partition.report.name}: {error.__cause__}, again and again"
            report = partition.report
            place = Place(place.path)
            continue
        except (PylogError, OSError) as error:
            # A broken or missing file is told of; whoever it was that could not be read, the others can.
            partition.report.error = str(error) if isinstance(error, PylogError) else f"{error.filename}: {error}"
            return partition.report
        damage = {finding for finding in report.findings if finding.is_damage}
        # Where somebody may be writing, what is wrong counts only if it is still so at a second look.
        if not damage or damage == seen or place.alone or not (place.is_live or place.in_use()):
            break
        seen = set(damage)
        place = Place(place.path)
    return report
