"""Whole columns and whole batches, beside what the same bytes cost without a log around them."""

from __future__ import annotations

import json
import mmap
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped, unused-ignore]
import numpy as np

from benchmarks.harness import Bar, Comparison, Contender, Figures, Workload, elapsed
from benchmarks.pylog_peer import Pylog, PylogLz4, fixed_width_column
from benchmarks.store_rows import consuming, rate_figures, require_count

WRITE_BYTES = 1 << 20
COMPRESS_BYTES = 262_144  # a producer's batch_size
JSON_SEED = 11
JSON_WORDS = ("first ", "order ", "paid. ", "delay ", "cart: ", "again ")


def comparisons() -> list[Comparison]:
    """Columns, send_columns and lz4; none of them has a bar yet."""
    return [
        Comparison(
            key="columns",
            title="scan as columns, CRC checked; beside it, adding up the mapped segment files",
            contenders=[consuming(Pylog, Pylog.scan_columns, "pylog scan, columns"), _mapped_read()],
            bars=[Bar(subject="pylog scan, columns", reference="mapped read of the segment files")],
        ),
        Comparison(
            key="send-columns",
            title="send_columns of a fixed-width array, then flush; beside it, pwrite of the segment bytes it makes",
            contenders=[
                _send_columns(),
                _raw_pwrite("pwrite 1 MiB, growing file", reserved=False),
                _raw_pwrite("pwrite 1 MiB, reserved file", reserved=True),
            ],
            bars=[
                Bar(subject="pylog send_columns", reference="pwrite 1 MiB, growing file"),
                Bar(subject="pylog send_columns", reference="pwrite 1 MiB, reserved file"),
            ],
        ),
        Comparison(
            key="lz4-produce",
            title="send_many with lz4, JSON-like values; beside it, liblz4 on the same values joined",
            contenders=[
                _with_json_values(_lz4_produce()),
                _with_json_values(_liblz4("liblz4 compress", decompress=False)),
            ],
            bars=[Bar(subject="pylog send_many, lz4", reference="liblz4 compress")],
        ),
        Comparison(
            key="lz4-consume",
            title="scan of lz4 batches as columns, JSON-like values; beside it, liblz4 on the same values joined",
            contenders=[
                _with_json_values(consuming(PylogLz4, PylogLz4.scan_columns, "pylog scan, lz4")),
                _with_json_values(_liblz4("liblz4 decompress", decompress=True)),
            ],
            bars=[Bar(subject="pylog scan, lz4", reference="liblz4 decompress")],
        ),
    ]


def _mapped_read() -> Contender:
    def measure(directory: Path, workload: Workload) -> Figures:
        with Pylog(directory, batch_records=workload.batch_records) as store:
            store.produce_batches(workload.values)
            paths = store.log_files()
        seconds = elapsed(lambda: [_add_up(path) for path in paths])
        return rate_figures(seconds, workload)

    return Contender(name="mapped read of the segment files", measure=measure)


def _add_up(path: Path) -> int:
    if path.stat().st_size == 0:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        words = np.frombuffer(mapped, dtype=np.uint64, count=len(mapped) // 8)
        total = int(words.sum())
        del words  # the mapping cannot be closed under a view
    return total


def _send_columns() -> Contender:
    name = "pylog send_columns"

    def measure(directory: Path, workload: Workload) -> Figures:
        column = fixed_width_column(workload.values)
        with Pylog(directory, batch_records=workload.batch_records) as store:
            seconds = elapsed(lambda: store.produce_columns(column))
            require_count(name, store.count(), len(workload.values))
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def _raw_pwrite(name: str, *, reserved: bool) -> Contender:
    def measure(directory: Path, workload: Workload) -> Figures:
        with Pylog(directory, batch_records=workload.batch_records) as store:
            store.produce_columns(fixed_width_column(workload.values))
            paths = store.log_files()
        segment_bytes = b"".join(path.read_bytes() for path in paths)
        file = os.open(directory / "raw", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            if reserved:
                os.posix_fallocate(file, 0, len(segment_bytes))
            seconds = elapsed(partial(_write_all, file, segment_bytes))
        finally:
            os.close(file)
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def _write_all(file: int, content: bytes) -> None:
    view, position = memoryview(content), 0
    while position < len(content):
        position += os.pwrite(file, view[position : position + WRITE_BYTES], position)


def _lz4_produce() -> Contender:
    name = "pylog send_many, lz4"

    def measure(directory: Path, workload: Workload) -> Figures:
        with PylogLz4(directory, batch_records=workload.batch_records) as store:
            seconds = elapsed(lambda: store.produce_batches(workload.values))
            require_count(name, store.count(), len(workload.values))
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def _liblz4(name: str, *, decompress: bool) -> Contender:
    def measure(_directory: Path, workload: Workload) -> Figures:
        joined = b"".join(workload.values)
        blocks: Sequence[bytes] = [joined[at : at + COMPRESS_BYTES] for at in range(0, len(joined), COMPRESS_BYTES)]
        work: Callable[[bytes], bytes] = _compress
        if decompress:
            blocks, work = [_compress(block) for block in blocks], lz4.frame.decompress
        seconds = elapsed(lambda: [len(work(block)) for block in blocks])
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def _compress(block: bytes) -> bytes:
    """One frame of independent 64 KiB blocks, as Kafka's clients write; its size lets reading allocate once."""
    compressed: bytes = lz4.frame.compress(
        block, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False, store_size=True
    )
    return compressed


def _with_json_values(contender: Contender) -> Contender:
    """The same contender with as many values of about the same length that look like events in JSON."""

    def measure(directory: Path, workload: Workload) -> Figures:
        value_bytes = len(workload.values[0])
        values = list(_json_values(len(workload.values), value_bytes))
        return contender.measure(directory, Workload(values=values, batch_records=workload.batch_records))

    return Contender(name=contender.name, measure=measure)


def _json_values(count: int, value_bytes: int) -> Iterator[bytes]:
    noise = random.Random(JSON_SEED)
    for number in range(count):
        event = {
            "id": number,
            "user": f"user{noise.randrange(10_000)}",
            "action": noise.choice(("view", "search", "order", "return")),
            "amount_cents": noise.randrange(10_000),
        }
        text = json.dumps(event)
        event["note"] = "".join(noise.choices(JSON_WORDS, k=max(0, value_bytes - len(text) - 10) // 6))
        yield json.dumps(event).encode()
