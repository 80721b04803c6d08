"""What pylog writes, as real Kafka sees it: its dump tool, a broker that takes the directories over, a real consumer.

PYLOG_BROKER_SEEDS (1,2,3): which data; PYLOG_BROKER_RECORDS: records in the largest topic.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import pylog

from . import kafka, shapes
from .golden import batches, check_indexes_mean_the_log, modelled_indexes, offset_entries, time_entries
from .kafka import Row
from .shapes import REOPENED, SHAPES

pytestmark = pytest.mark.broker
every_shape = pytest.mark.parametrize("topic", list(SHAPES))

BY_BROKER = 10
BATCH_LINE = re.compile(
    r"baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .* compresscodec: (\w+) crc: \d+ isvalid: (\w+)"
)
INDEX_PASSES = re.compile(r".* (passed sanity check\.|is empty\.)$")


@dataclass
class Written:
    """What pylog wrote, how Kafka's tool found it, and what became of it under a broker."""

    data: Path
    sent: dict[str, list[Row]]
    closed_at: dict[str, list[int]]
    read: dict[str, list[Row]] = field(default_factory=dict)
    start: dict[str, int] = field(default_factory=dict)
    dumped: dict[str, list[str]] = field(default_factory=dict)
    dump_error: str = ""
    index_lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    index_errors: dict[str, str] = field(default_factory=dict)

    def files(self, topic: str, suffix: str) -> list[str]:
        return sorted(f"{topic}-0/{path.name}" for path in (self.data / f"{topic}-0").glob(f"*.{suffix}"))


@dataclass
class TakenOver:
    """The same under a broker: what a real consumer read, and the directory after the broker appended and stopped."""

    data: Path
    consumed: dict[str, list[Row] | Exception]
    said: str


@pytest.fixture(scope="module", params=shapes.SEEDS, ids=lambda seed: f"seed{seed}")
def written(request: pytest.FixtureRequest, broker_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """All shapes, written by pylog and looked at by Kafka's dump tool."""
    data = tmp_path_factory.mktemp("written") / "pylog"
    found = Written(data, *shapes.fill(data, request.param))
    with pylog.open(data, read_only=True) as log:
        for topic in SHAPES:
            found.read[topic] = list(shapes.read(log, topic))
            state = log.admin.describe_topics([topic])[0]["partitions"][0]
            found.start[topic] = state["start_offset"]
    logs = [file for topic in SHAPES for file in found.files(topic, "log")]
    found.dumped, found.dump_error = kafka.dump_log(data, logs, "--deep-iteration")
    indexes = [file for topic in SHAPES for suffix in ("index", "timeindex") for file in found.files(topic, suffix)]
    for flag in ("--index-sanity-check", "--verify-index-only"):
        found.index_lines[flag], found.index_errors[flag] = kafka.dump_log(data, indexes, flag)
    return found


@pytest.fixture(scope="module")
def taken_over(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TakenOver]:
    """A broker gets the logs without indexes and without a clean mark: it checks every batch and builds its own."""
    home = tmp_path_factory.mktemp("taken")
    data = home / "broker"
    broker = kafka.Broker(data, home / "work")
    with broker:
        broker.create({topic: (1, {"retention_ms": -1, **settings}) for topic, settings in SHAPES.items()})
    for topic in SHAPES:
        for path in (data / f"{topic}-0").glob("0*"):
            path.unlink()
        for path in (written.data / f"{topic}-0").glob("*.log"):
            shutil.copy(path, data / f"{topic}-0")
    (data / ".kafka_cleanshutdown").unlink()
    consumed: dict[str, list[Row] | Exception] = {}
    with broker:
        for topic in SHAPES:
            try:
                consumed[topic] = broker.read(topic, start=broker.ends(topic, 0)[0])
            except Exception as error:
                consumed[topic] = error
        producer = broker.producer()
        for topic in SHAPES:
            for number in range(BY_BROKER):
                producer.produce(topic, b"by the broker %d" % number, key=b"b", partition=0)
        assert producer.flush(60) == 0
        del producer
    said = broker.said()
    yield TakenOver(data, consumed, said)
    shutil.rmtree(home)


def test_records_are_read_back_as_they_were_sent(written: Written) -> None:
    for topic, rows in written.sent.items():
        assert written.read[topic] == rows, topic
    assert len(written.read["million"]) == shapes.RECORDS
    assert [row[3:5] for row in written.read["columns"]] == [(n.to_bytes(8, "big"),) * 2 for n in range(20_000)]
    assert [row[0] for row in written.read["deleted"]] == list(range(333, 600))


def test_shapes_came_out_as_they_are_called(written: Written) -> None:
    for topic in SHAPES:
        rolls = topic.startswith(("rolled-", "large-", "deleted")) or topic == "reopened"
        assert (len(written.files(topic, "log")) > 1) == rolls, topic
    assert {row[2] for row in written.read["append-time"]} == {1}
    assert all(len(offsets) == shapes.REOPENINGS for offsets in written.closed_at.values())


@every_shape
def test_the_dump_tool_finds_every_batch_valid_and_no_gap(written: Written, topic: str) -> None:
    assert faults_said(written.dump_error) == []
    found = []
    for file in written.files(topic, "log"):
        lines = [line for line in written.dumped[file] if not line.startswith(("Log starting offset", "| offset"))]
        matches = [BATCH_LINE.match(line) for line in lines]
        assert all(matches), f"{file}: {[line for line, match in zip(lines, matches, strict=True) if not match]}"
        found += [match for match in matches if match]
    assert {match[5] for match in found} <= {"true"}
    assert all(int(one[2]) + 1 == int(next_one[1]) for one, next_one in itertools.pairwise(found))
    assert all(int(match[3]) == int(match[2]) - int(match[1]) + 1 for match in found)
    codecs = {match[4] for match in found}
    assert codecs <= {shapes.codec_of(topic), "none"}
    assert shapes.codec_of(topic) in codecs or topic.startswith("one-") or topic == "empty"


def faults_said(text: str) -> list[str]:
    """What the dump tool complains of, but for a segment's first offset: it expects each to begin with 0."""
    return [
        line for line in text.splitlines() if not re.match(r"Non-consecutive offsets in |  -1 is followed by ", line)
    ]


@pytest.mark.parametrize("flag", ["--index-sanity-check", "--verify-index-only"])
@every_shape
def test_the_dump_tool_finds_no_fault_in_an_index(written: Written, topic: str, flag: str) -> None:
    assert written.index_errors[flag] == ""
    logs = written.files(topic, "log")
    for suffix in ("index", "timeindex"):
        files = written.files(topic, suffix)
        assert len(files) == len(logs)
        for file in files:
            faults = [line for line in written.index_lines[flag][file] if line and not INDEX_PASSES.match(line)]
            assert faults == [], file


@every_shape
def test_a_real_consumer_reads_every_record_as_pylog_does(written: Written, taken_over: TakenOver, topic: str) -> None:
    got = taken_over.consumed[topic]
    if isinstance(got, Exception):
        raise got
    if topic == "deleted":  # how far it was deleted stands in a checkpoint, which the logs alone do not bring along
        got = [row for row in got if row[0] >= written.start[topic]]
    assert len(got) == len(written.read[topic])
    assert got == written.read[topic]


@pytest.mark.parametrize("topic", [topic for topic in SHAPES if topic not in REOPENED])
def test_indexes_are_those_that_the_broker_builds(written: Written, taken_over: TakenOver, topic: str) -> None:
    logs = written.files(topic, "log")
    for file in logs:
        for suffix in (".index", ".timeindex"):
            ours = (written.data / file).with_suffix(suffix).read_bytes()
            theirs = (taken_over.data / file).with_suffix(suffix).read_bytes()
            if file == logs[-1]:  # the broker has appended to it since
                theirs = theirs[: len(ours)]
            assert ours == theirs, (taken_over.data / file).with_suffix(suffix).name


@pytest.mark.parametrize("topic", REOPENED)
def test_a_close_in_mid_segment_adds_its_time_entry_and_nothing_else(
    written: Written, taken_over: TakenOver, topic: str
) -> None:
    check_indexes_mean_the_log(written.data / f"{topic}-0")
    interval = SHAPES[topic].get("index_interval_bytes", 4096)
    differing = 0
    for file in written.files(topic, "log"):
        path, theirs = written.data / file, taken_over.data / file
        segment, base_offset = list(batches(path)), int(path.stem)
        offsets, times = modelled_indexes(segment, base_offset, interval, written.closed_at[topic])
        assert offset_entries(path.with_suffix(".index")) == offsets
        assert time_entries(path.with_suffix(".timeindex")) == times
        _, times_in_one_go = modelled_indexes(segment, base_offset, interval)
        assert time_entries(theirs.with_suffix(".timeindex"))[: len(times_in_one_go)] == times_in_one_go
        assert offset_entries(theirs.with_suffix(".index"))[: len(offsets)] == offsets
        differing += times != times_in_one_go
    assert differing > 0


def test_the_broker_had_nothing_to_cut_or_to_complain_of(taken_over: TakenOver) -> None:
    complaints = [
        line
        for line in taken_over.said.splitlines()
        if re.search(r" ERROR |(?i:truncat|corrupt|invalid)", line) and "Truncating to 0" not in line
    ]
    assert complaints == []


@every_shape
def test_pylog_reads_on_where_the_broker_appended(written: Written, taken_over: TakenOver, topic: str) -> None:
    end = written.read[topic][-1][0] + 1 if written.read[topic] else 0
    with pylog.open(taken_over.data, read_only=True) as log:
        got = list(log.read(topic, 0, start=end))
    assert [(record.offset, record.key, record.value) for record in got] == [
        (end + number, b"b", b"by the broker %d" % number) for number in range(BY_BROKER)
    ]
