"""One data directory handed back and forth between a real broker and pylog: each goes on where the other stopped."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

from . import kafka
from .golden import batches, check_indexes_mean_the_log, name, producers
from .kafka import Broker, Row

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("broker_tools")]

ROUNDS = 3
TOPICS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (3, {}),
    "rolling": (1, {"segment_ms": 60_000, "index_interval_bytes": 256}),
    "compressed": (1, {"compression_type": "lz4"}),
    "append-time": (1, {"message_timestamp_type": "LogAppendTime"}),
    "deleted": (1, {}),
    "idempotent": (1, {}),
    "transactional": (1, {"index_interval_bytes": 1}),
    "untouched": (1, {}),
}
PARTITIONS = [TopicPartition(topic, number) for topic, (count, _) in TOPICS.items() for number in range(count)]
T0 = 1_790_000_000_000
every_partition = pytest.mark.parametrize("tp", PARTITIONS, ids=name)

Rows = dict[TopicPartition, list[Row]]
COMPLAINT = re.compile(r" ERROR |(?i:corrupt|truncating|unclean|recovering|stray)")


@dataclass
class Visit:
    """What one side saw, and left: all records at its end, its ends, and small files."""

    rows: Rows = field(default_factory=dict)
    committed: Rows = field(default_factory=dict)
    ends: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    said: str = ""


def read_by_pylog(log: pylog.Log, tp: TopicPartition, *, committed: bool = False) -> list[Row]:
    records = log.read(*tp, isolation_level="read_committed" if committed else "read_uncommitted")
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, tuple(r.headers)) for r in records]


def look_by_pylog(log: pylog.Log, visit: Visit) -> None:
    with log.consumer() as consumer:
        low, high = consumer.beginning_offsets(PARTITIONS), consumer.end_offsets(PARTITIONS)
    for tp in PARTITIONS:
        visit.rows[tp] = read_by_pylog(log, tp)
        visit.committed[tp] = read_by_pylog(log, tp, committed=True)
        visit.ends[tp] = low[tp], high[tp]


def look_by_broker(broker: Broker, visit: Visit) -> None:
    ends = broker.all_ends(PARTITIONS)
    starts = {partition: low for partition, (low, _) in ends.items()}
    rows, committed = broker.read_all(starts), broker.read_all(starts, committed=True)
    for tp in PARTITIONS:
        visit.ends[tp], visit.rows[tp], visit.committed[tp] = ends[tp], rows[tp], committed[tp]


def produce(broker: Broker, round_number: int, names: Mapping[str, Any]) -> None:
    """Records of a plain, an idempotent and a transactional producer (one commit, one abort)."""
    plain, idempotent = broker.producer(), names["idempotent"]
    for at in range(60):
        for tp in PARTITIONS:
            if tp.topic in ("idempotent", "transactional") or (tp.topic == "untouched" and round_number > 0):
                continue
            stamp = T0 + (round_number * 1000 + at) * 1000
            plain.produce(tp.topic, b"broker %d %d" % (round_number, at), b"k%d" % at, tp.partition, timestamp=stamp)
            if at % 10 == 0:
                plain.flush(30)
        idempotent.produce("idempotent", b"broker %d %d" % (round_number, at), b"k", 0)
        if at % 10 == 0:
            idempotent.flush(30)
    assert plain.flush(30) == idempotent.flush(30) == 0
    transactional = broker.producer(transactional_id="t")
    transactional.init_transactions(30)
    for at in range(6):
        transactional.begin_transaction()
        transactional.produce("transactional", b"broker %d %d" % (round_number, at), b"k", 0)
        transactional.flush(30)
        (transactional.abort_transaction if at % 2 else transactional.commit_transaction)(30)


def visit_by_pylog(data: Path, round_number: int) -> tuple[Visit, Visit]:
    """What pylog found, and what it left."""
    found, left = Visit(), Visit()
    with pylog.open(data) as log:
        look_by_pylog(log, found)
        if round_number == 1:  # a broker's settings are in its metadata; pylog has to be told those that matter
            for topic, (_, settings) in TOPICS.items():
                if settings:
                    log.admin.alter_configs(topic, **settings)
        with log.producer() as producer:
            for at in range(40):
                for tp in PARTITIONS:
                    if tp.topic != "untouched":
                        stamp = T0 + (round_number * 1000 - 500 + at) * 1000
                        value = b"pylog %d %d" % (round_number, at)
                        producer.send(tp.topic, value, key=b"p", partition=tp.partition, timestamp_ms=stamp)
                if at % 8 == 0:
                    producer.flush()
        if round_number == 2:
            log.admin.delete_records({TopicPartition("deleted", 0): 75})
        look_by_pylog(log, left)
    return found, left


@dataclass
class History:
    data: Path
    broker: Broker
    first: Visit
    found: list[Visit] = field(default_factory=list)
    left: list[Visit] = field(default_factory=list)
    seen: list[Visit] = field(default_factory=list)
    after: list[Visit] = field(default_factory=list)
    small_files: list[dict[str, str]] = field(default_factory=list)
    producers: list[dict[int, tuple[int, int]]] = field(default_factory=list)


def small_files(data: Path) -> dict[str, str]:
    """What must stay as the broker made it."""
    kept = [data / "meta.properties", *(data / name(tp) / "partition.metadata" for tp in PARTITIONS)]
    return {str(path.relative_to(data)): path.read_text() for path in kept}


def known_producers(data: Path, tp: TopicPartition) -> dict[int, tuple[int, int]]:
    """producer id -> epoch, last sequence, from the newest snapshot."""
    newest = max((data / name(tp)).glob("*.snapshot"))
    return {entry.producer_id: (entry.epoch, entry.last_sequence) for entry in producers(newest)}


@pytest.fixture(scope="module")
def history(broker_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """broker, then three times pylog and the broker again."""
    home = tmp_path_factory.mktemp("handover")
    broker = Broker(home / "data", home / "work")
    past = History(home / "data", broker, Visit())
    clients: dict[str, Any] = {}
    with broker:
        broker.create(TOPICS)
        clients["idempotent"] = broker.producer(enable_idempotence=True, message_timeout_ms=300_000)
        produce(broker, 0, clients)
        past.first.ids = broker.topic_ids()
        look_by_broker(broker, past.first)
    past.small_files.append(small_files(past.data))
    idempotent = TopicPartition("idempotent", 0)
    past.producers.append(known_producers(past.data, idempotent))
    for round_number in range(1, ROUNDS + 1):
        found, left = visit_by_pylog(past.data, round_number)
        past.found.append(found)
        past.left.append(left)
        past.small_files.append(small_files(past.data))
        past.producers.append(known_producers(past.data, idempotent))
        seen, after = Visit(), Visit()
        with broker:
            seen.ids = broker.topic_ids()
            look_by_broker(broker, seen)
            produce(broker, round_number, clients)  # the idempotent producer is the same one: it goes on counting
            look_by_broker(broker, after)
        after.said = broker.said()
        past.seen.append(seen)
        past.after.append(after)
        past.producers.append(known_producers(past.data, idempotent))
    clients.clear()
    yield past
    shutil.rmtree(home)


@every_partition
def test_each_side_finds_what_the_other_left(history: History, tp: TopicPartition) -> None:
    before = history.first
    for found, left, seen, after in zip(history.found, history.left, history.seen, history.after, strict=True):
        for one, other in ((before, found), (left, seen)):
            assert other.ends[tp] == one.ends[tp]
            assert other.rows[tp] == one.rows[tp]
            assert other.committed[tp] == one.committed[tp]
        before = after


@every_partition
def test_offsets_go_on_without_a_gap_and_with_the_senders_records(history: History, tp: TopicPartition) -> None:
    last = history.after[-1]
    if tp.topic == "untouched":
        assert last.ends[tp] == (0, 60)
        return
    low, high = last.ends[tp]
    assert low == (75 if tp.topic == "deleted" else 0)
    by_pylog = [row[4] for row in last.rows[tp] if row[3] == b"p"]
    want = [b"pylog %d %d" % (number, at) for number in range(1, ROUNDS + 1) for at in range(40)]
    assert by_pylog == (want[15:] if tp.topic == "deleted" else want)
    if tp.topic != "transactional":  # there, markers have offsets too
        assert [row[0] for row in last.rows[tp]] == list(range(low, high))
        assert high == 60 * (ROUNDS + 1) + 40 * ROUNDS


def test_topic_ids_and_the_brokers_small_files_stay(history: History) -> None:
    assert set(history.first.ids) == set(TOPICS)
    assert all(seen.ids == history.first.ids for seen in history.seen)
    assert all(files == history.small_files[0] for files in history.small_files)


def test_the_broker_trusts_a_directory_that_pylog_closed(history: History) -> None:
    for after in history.after:
        assert "Skipping recovery of" in after.said
        lines = [
            line for line in after.said.splitlines() if "__cluster_metadata" not in line
        ]  # it always recovers that
        complaints = [line for line in lines if COMPLAINT.search(line)]
        assert complaints == []


def test_pylogs_own_files_lie_there_all_the_time(history: History) -> None:
    assert (history.data / "pylog.topics").exists()


def test_an_idempotent_producer_is_known_throughout(history: History) -> None:
    (producer_id,) = history.producers[0]
    counts = [known[producer_id] for known in history.producers]
    # Broker, pylog, broker, and so on: only the broker's rounds move it on, pylog's keep what they find.
    assert counts == [(0, 60 * (visit // 2 + 1) - 1) for visit in range(2 * ROUNDS + 1)]


def test_transactions_are_committed_or_aborted_behind_pylogs_records(history: History) -> None:
    tp = TopicPartition("transactional", 0)
    seen = [row[4] for row in history.after[-1].committed[tp]]
    want: list[bytes] = []
    for number in range(ROUNDS + 1):
        want += [b"pylog %d %d" % (number, at) for at in range(40) if number > 0]
        want += [b"broker %d %d" % (number, at) for at in range(0, 6, 2)]
    assert seen == want


@every_partition
def test_leader_epochs_never_go_back(history: History, tp: TopicPartition) -> None:
    logs = sorted((history.data / name(tp)).glob("*.log"))
    epochs = [batch.leader_epoch for path in logs for batch in batches(path)]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == (1 if tp.topic == "untouched" else ROUNDS + 1)


@every_partition
def test_indexes_mean_the_log_after_many_hands(history: History, tp: TopicPartition) -> None:
    check_indexes_mean_the_log(history.data / name(tp))


def test_the_dump_tool_finds_no_fault_after_many_hands(history: History) -> None:
    logs = [
        str(path.relative_to(history.data)) for tp in PARTITIONS for path in (history.data / name(tp)).glob("*.log")
    ]
    shown, said = kafka.dump_log(history.data, sorted(logs), "--deep-iteration")
    valid = [line for lines in shown.values() for line in lines if line.startswith("baseOffset")]
    assert len(shown) == len(logs)
    assert all(line.endswith("isvalid: true") for line in valid)
    assert [line for line in said.splitlines() if not re.match(r"Non-consec|  -1 is followed", line)] == []
    indexes = [file.removesuffix("log") + suffix for file in logs for suffix in ("index", "timeindex")]
    shown, said = kafka.dump_log(history.data, sorted(indexes), "--index-sanity-check")
    assert said == ""
    assert {line.split("passed")[-1] for lines in shown.values() for line in lines if "is empty" not in line} <= {
        " sanity check."
    }
