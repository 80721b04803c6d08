"""The steps of the demo. Each does its work with pylog's public calls, shows a little of it, and checks all of it."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

import pylog
from pylog import Consumer, Log, Record, TopicPartition, _dump

from .report import COLUMNS, INDENT, columns_of, counted, duration, explain, heading, rate, say, shown, table
from .sources import Source, read_lines
from .tally import CheckError, Tally

T = TypeVar("T")

TOPIC = "lines"
PARTITIONS = 3
POLL_RECORDS = 10_000
SHOWN_RECORDS = 3
SHOWN_FILES = 16
LINE_MS = 1000
DUMPED_LINES = 4  # one batch and three of its records
# Enough for a first batch of the largest size; more would only be thrown away.
DUMPED_BYTES = 1_100_000
DUMPED_CHARACTERS = 360
LENGTH_BOUNDS = (0, 1, 20, 40, 60, 80, 120)
BAR_COLUMNS = 40
SPANS = [(24 * 3600, "day"), (3600, "hour"), (600, "10 minutes"), (60, "minute"), (10, "10 seconds"), (1, "second")]


class Stopwatch:
    """Sums up the time of the calls made through it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(self, call: Callable[[], T]) -> T:
        """Call, and add the time that it took."""
        start = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - start
        return result


class Tour:
    """What the steps hand on to each other."""

    def __init__(self, sources: list[Source], directory: Path) -> None:
        self.sources = sources
        self.directory = directory
        self.line_count = sum(source.line_count for source in sources)
        self.last_ms = int(time.time() * 1000)
        seconds, self.span = next(
            ((seconds, span) for seconds, span in SPANS if seconds * 2 <= self.line_count), SPANS[-1]
        )
        self.late_count = min(seconds, self.line_count)
        # Just behind a line's timestamp: the next line is then the first at or after it.
        self.since_ms = self.last_ms - seconds * LINE_MS + 1
        self.sent = Tally()
        self.sent_late = Tally()
        self.partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        self.fullest = self.partitions[0]
        self.fullest_count = 0

    @property
    def replay_offset(self) -> int:
        """Three quarters into the fullest partition."""
        return self.fullest_count * 3 // 4

    @property
    def segment(self) -> Path:
        """The fullest partition's first segment file."""
        return self.directory / f"{TOPIC}-{self.fullest.partition}" / f"{0:020d}.log"

    def produce(self, log: Log) -> None:
        """Every line becomes a record."""
        heading(
            1,
            "Produce: every line of text becomes a record",
            f'producer.send_many("{TOPIC}", lines, keys=..., timestamps_ms=...)',
        )
        # Never deleted for its age: the demo is to be there whenever somebody comes back to it.
        log.admin.create_topic(TOPIC, PARTITIONS, retention_ms=-1)
        watch = Stopwatch()
        futures = []
        number = 0
        with log.producer() as producer:
            for source in self.sources:
                for lines in read_lines(source):
                    first_ms = self.last_ms - (self.line_count - 1 - number) * LINE_MS
                    times = range(first_ms, first_ms + len(lines) * LINE_MS, LINE_MS)
                    keys = [source.key] * len(lines)
                    send = partial(producer.send_many, TOPIC, lines, keys, timestamps_ms=times)
                    futures.append((source, watch.run(send)))
                    self.sent.add(source.key, lines)
                    self.sent_late.add(source.key, lines[max(0, self.line_count - self.late_count - number) :])
                    number += len(lines)
            watch.run(producer.flush)
        counts = dict.fromkeys(self.partitions, 0)
        place: dict[Path, int] = {}
        for source, future in futures:
            for tp, ranges in future.get().items():
                counts[tp] += sum(map(len, ranges))
                place[source.path] = tp.partition
        self.fullest, self.fullest_count = max(counts.items(), key=lambda item: item[1])
        self._show_files(place)
        say()
        say(f"{INDENT}{_figures(self.sent, watch)}")
        say()
        explain(
            "value: the line. key: the file's name; it decides the partition, so the lines of a file stay together and "
            "in order. timestamp: as if a line had come in every second, the last one just now."
        )

    def _show_files(self, place: dict[Path, int]) -> None:
        rows = [
            (
                shown(source.key, 40),
                f"{source.line_count:,}",
                f"{source.size:,}",
                f"{TOPIC}-{place[source.path]}",
            )
            for source in self.sources[:SHOWN_FILES]
        ]
        table(("file", "lines", "bytes", "partition"), rows, "<>><")
        if len(self.sources) > SHOWN_FILES:
            say(f"{INDENT}... and {len(self.sources) - SHOWN_FILES:,} more files")

    def consume(self, log: Log) -> None:
        """Everything comes back."""
        heading(
            2,
            "Consume: read everything back, and compare",
            f'consumer = log.consumer("{TOPIC}"); consumer.poll()',
        )
        received = Tally()
        counts = dict.fromkeys(self.partitions, 0)
        firsts: dict[TopicPartition, Record] = {}
        watch = Stopwatch()
        with log.consumer(TOPIC, max_poll_records=POLL_RECORDS) as consumer:
            for tp, records in _poll_all(consumer, watch):
                received.add_records(records)
                firsts.setdefault(tp, _first_with_text(records))
                counts[tp] += len(records)
        rows = [
            (f"{tp.topic}-{tp.partition}", f"{counts[tp]:,}", shown(firsts[tp].value, 48) if tp in firsts else "")
            for tp in self.partitions
        ]
        table(("partition", "records", "first text"), rows, "<><")
        say()
        say(f"{INDENT}{_figures(received, watch)}")
        received.check(self.sent, "consuming everything")
        say(f"{INDENT}sha256 of the lines produced: {self.sent.sha256[:16]}")
        say(f"{INDENT}sha256 of the lines consumed: {received.sha256[:16]}, the same")

    def replay_from_offset(self, log: Log) -> None:
        """From a place in one partition on."""
        tp, offset = self.fullest, self.replay_offset
        heading(
            3,
            f"Replay from an offset: {tp.topic}-{tp.partition} again, from record {offset:,} on",
            f"consumer.assign([tp]); consumer.seek(tp, {offset}); consumer.poll()",
        )
        replayed: list[Record] = []
        expected, received = Tally(), Tally()
        with log.consumer(max_poll_records=POLL_RECORDS) as consumer:
            consumer.assign([tp])
            for _, records in _poll_all(consumer, Stopwatch()):
                expected.add_records(record for record in records if record.offset >= offset)
            consumer.seek(tp, offset)
            watch = Stopwatch()
            for _, records in _poll_all(consumer, watch):
                received.add_records(records)
                replayed += records[: SHOWN_RECORDS - len(replayed)]
        _show_records(replayed)
        say(f"{INDENT}{_figures(received, watch)}")
        received.check(expected, f"replaying from offset {offset}")
        if received.records != self.fullest_count - offset or replayed[0].offset != offset:
            raise CheckError(f"replaying from offset {offset}: {received.records} records, {replayed[0].offset} first")
        explain(f"The same lines as before, from offset {offset:,} to the end: reading takes nothing away.")

    def replay_from_time(self, log: Log) -> None:
        """From a moment on, in all partitions."""
        heading(
            4,
            f"Replay from a time: the last {self.span}, since {_clock(self.since_ms)}",
            "found = consumer.offsets_for_times({tp: ms, ...}); consumer.seek(tp, offset)",
        )
        received = Tally()
        earliest: dict[TopicPartition, Record] = {}
        watch = Stopwatch()
        with log.consumer(max_poll_records=POLL_RECORDS) as consumer:
            asked = dict.fromkeys(self.partitions, self.since_ms)
            found = watch.run(lambda: consumer.offsets_for_times(asked))
            consumer.assign([tp for tp, place in found.items() if place is not None])
            for tp, place in found.items():
                if place is not None:
                    consumer.seek(tp, place.offset)
            for tp, records in _poll_all(consumer, watch):
                received.add_records(records)
                earliest.setdefault(tp, _first_with_text(records))
        rows = [
            (
                f"{tp.topic}-{tp.partition}",
                "nothing that late" if place is None else f"from offset {place.offset:,}",
                "" if place is None else _clock(place.timestamp),
                shown(earliest[tp].value, 34) if tp in earliest else "",
            )
            for tp, place in found.items()
        ]
        table(("partition", "read", "time", "first text"), rows, "<<<<")
        say()
        say(f"{INDENT}{_figures(received, watch)}")
        received.check(self.sent_late, f"replaying since {_clock(self.since_ms)}")
        explain(f"They are the last of the lines produced: {self.late_count:,}, no more and no less.")

    def columns(self, log: Log) -> None:
        """The same records as numpy arrays."""
        heading(
            5,
            "Columns: the same records as numpy arrays, without a Python object per line",
            f'for columns in log.scan("{TOPIC}"): columns.value.lengths ...',
        )
        records = byte_count = 0
        longest = b""
        longest_length = -1
        at_least = np.zeros(len(LENGTH_BOUNDS), np.int64)
        watch = Stopwatch()
        chunks = iter(log.scan(TOPIC))
        while (columns := watch.run(lambda: next(chunks, None))) is not None:
            start = time.perf_counter()
            lengths = columns.value.lengths
            records += len(columns)
            byte_count += int(lengths.sum(dtype=np.int64))
            at_least += [np.count_nonzero(lengths >= bound) for bound in LENGTH_BOUNDS]
            row = int(lengths.argmax())
            if lengths[row] > longest_length:
                longest_length, longest = int(lengths[row]), bytes(columns.value[row] or b"")
            watch.seconds += time.perf_counter() - start
        _show_lengths(at_least)
        say()
        say(f"{INDENT}{counted(records, 'record')} in {duration(watch.seconds)}: {rate(records, watch.seconds)}")
        say(
            f"{INDENT}{counted(byte_count, 'byte')}, {byte_count / records:.1f} a line; the longest: {longest_length:,}"
        )
        say(f"{INDENT}{shown(longest.strip() or b'(a blank line)', COLUMNS - len(INDENT))}")
        if (records, byte_count) != (self.sent.records, self.sent.bytes):
            raise CheckError(
                f"columns: {records:,} records with {byte_count:,} bytes, "
                f"{self.sent.records:,} with {self.sent.bytes:,} were produced"
            )

    def dump(self, command: str) -> None:
        """What a segment file holds."""
        heading(6, "Dump: what is in a segment file, in the words of Kafka's own dump tool", command)
        collected = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(collected):
            code = _dump.main(["--print-data-log", "--max-bytes", str(DUMPED_BYTES), str(self.segment)])
        if code != 0:
            raise CheckError(f"{self.segment}: the dump finds a fault in it; see above")
        collected.seek(0)
        lines = [line for line in collected.read().split("\n") if line.startswith(("baseOffset", "| offset"))]
        lines = lines[:1] + [line for line in lines[1:] if not line.endswith("payload: ")]
        for line in lines[:DUMPED_LINES]:
            _wrap(line)
        say(f"{INDENT}...")
        if not lines or "isvalid: true" not in lines[0]:
            raise CheckError(f"{self.segment}: the dump shows no valid batch")
        say()
        explain(
            "First a batch, with its CRC-32C, then the first of its records that have text in them. Each is one line "
            "of the dump, wrapped here."
        )

    def reopen(self) -> None:
        """After closing, everything is there."""
        heading(
            7,
            "Close, open again: everything is still there",
            f'log.close(); log = pylog.open({str(self.directory)!r}); log.read("{TOPIC}")',
        )
        received = Tally()
        opening, reading = Stopwatch(), Stopwatch()
        with opening.run(lambda: pylog.open(self.directory)) as log:
            records = log.read(TOPIC)
            while part := reading.run(lambda: list(islice(records, POLL_RECORDS))):
                received.add_records(part)
        say(f"{INDENT}opened in {duration(opening.seconds)}; {_figures(received, reading)}")
        received.check(self.sent, "after opening again")
        say(f"{INDENT}sha256 of the lines: {received.sha256[:16]}, still the same")


def _poll_all(consumer: Consumer, watch: Stopwatch) -> Iterator[tuple[TopicPartition, list[Record]]]:
    while polled := watch.run(consumer.poll):
        yield from polled.items()


def _first_with_text(records: list[Record]) -> Record:
    return next((record for record in records if record.value.strip()), records[0])


def _figures(tally: Tally, watch: Stopwatch) -> str:
    return (
        f"{counted(tally.records, 'record')}, {counted(tally.bytes, 'byte')} in {duration(watch.seconds)}: "
        f"{rate(tally.records, watch.seconds)}"
    )


def _show_records(records: list[Record]) -> None:
    rows = [(f"{record.offset:,}", shown(record.key or b"", 20), shown(record.value, 44)) for record in records]
    table(("offset", "key", "value"), rows, "><<")
    say()


def _show_lengths(at_least: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    counts = (at_least - np.append(at_least[1:], 0)).tolist()
    names = ["0", *(f"{low}-{high - 1}" for low, high in pairwise(LENGTH_BOUNDS[1:]))]
    names.append(f"{LENGTH_BOUNDS[-1]} or more")
    most = max(counts)
    bars = ["#" * max(round(BAR_COLUMNS * count / most), count > 0) for count in counts]
    rows = [(name, f"{count:,}", bar) for name, count, bar in zip(names, counts, bars, strict=True)]
    table(("bytes in line", "lines", ""), rows, "<><")


def _clock(ms: int) -> str:
    moment = datetime.fromtimestamp(ms / 1000)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def _wrap(line: str) -> None:
    line = shown(line.encode(), DUMPED_CHARACTERS)
    indent = INDENT
    while line:
        room = COLUMNS - len(indent)
        piece = line
        if columns_of(line) > room:
            # No character is wider than two columns, so this much fits or a little more is taken off.
            piece = line[:room]
            while columns_of(piece) > room:
                piece = piece[:-1]
            piece = piece[: piece.rfind(" ") + 1 if piece.rfind(" ") > room // 2 else len(piece)]
        say(indent + piece.rstrip())
        line = line[len(piece) :]
        indent = INDENT + "    "
