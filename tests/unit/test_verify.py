"""`pylog verify`: whatever is damaged is told with its place, nothing else is, and --repair loses nothing more."""

import io
import itertools
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pylog
from pylog import TopicPartition, _native, cli
from pylog._verify.progress import Progress
from pylog._verify.repair import empty_batch

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
RECORDS = 300
T0 = 1_700_000_000_000
MARK = ".kafka_cleanshutdown"
SEED = 20_240_501
KILLS = int(os.environ.get("PYLOG_VERIFY_KILLS", "6"))
ROOT = Path(pylog.__file__).parents[1]


class Run(NamedTuple):
    """What a call of `pylog verify` said."""

    code: int
    items: list[dict[str, Any]]
    err: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Its objects of one type."""
        return [item for item in self.items if item["type"] == kind]

    @property
    def damage(self) -> list[dict[str, Any]]:
        return [item for item in self.of("damage") if "after" not in item]


Verify = Callable[..., Run]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(*arguments: object) -> Run:
        capsys.readouterr()
        code = cli.main(["verify", "--json", *map(str, arguments)])
        found = capsys.readouterr()
        return Run(code, [json.loads(line) for line in found.out.splitlines()], found.err)

    return run


def fill(path: Path, codec: str | None = None) -> Path:
    """A directory of several segments, ten batches or so in each, closed cleanly."""
    options: Any = {"compression_type": codec, "linger_ms": 1e6}
    with pylog.open(path, segment_bytes=4000, index_interval_bytes=300) as log, log.producer(**options) as producer:
        for i in range(0, RECORDS, 5):
            keys, values = [b"k%d" % j for j in range(i, i + 5)], [b"value %d " % j * 8 for j in range(i, i + 5)]
            producer.send_many("orders", values, keys, timestamps_ms=range(T0 + i, T0 + i + 5)).get()
    assert len(logs(path)) > 3 or codec
    return path


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Path]:
    return {codec: fill(tmp_path_factory.mktemp("verify") / "data", codec) for codec in CODECS}


@pytest.fixture
def copy(originals: dict[str | None, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals[None], tmp_path / "copy"))


def logs(path: Path) -> list[Path]:
    return sorted((path / "orders-0").glob("*.log"))


class Batch(NamedTuple):
    """Where a batch lies."""

    position: int
    size: int
    first: int
    last: int


def batches(data: bytes) -> list[Batch]:
    found: list[Batch] = []
    position = 0
    while header := _native.parse_batch(data, position):
        found.append(Batch(position, header.batch_bytes, header.base_offset, header.last_offset))
        position += header.batch_bytes
    return found


def tree(path: Path) -> dict[str, bytes]:
    """All files but the volatile ones."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in (".lock", "pylog.shm")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def records(path: Path, **options: Any) -> dict[int, bytes]:
    with pylog.open(path, read_only=True) as log:
        return {record.offset: record.value for record in log.read("orders", **options)}


def with_right_crc(batch: bytes) -> bytes:
    return batch[:17] + _native.crc32c(batch[21:]).to_bytes(4) + batch[21:]


# -- sound


@pytest.mark.parametrize("side", ["clean", "killed"])
def test_what_a_broker_wrote_is_sound_and_left_as_it_is(
    side: str, golden: Path, tmp_path: Path, verify: Verify
) -> None:
    place = Path(shutil.copytree(golden / side, tmp_path / side))
    before = tree(place)
    run = verify(place)
    assert (run.code, run.damage) == (0, [])
    parts = {item["partition"]: item for item in run.of("partition")}
    assert (parts["txn-0"]["batches"], parts["txn-0"]["segments"]) == (143, 5)
    assert (parts["compact-lz4-0"]["records"], parts["compact-lz4-0"]["logEndOffset"]) == (61, 601)
    assert parts["deleted-0"]["logStartOffset"] == 75
    assert tree(place) == before


@pytest.mark.parametrize("codec", CODECS)
def test_what_pylog_wrote_is_sound_and_left_as_it_is(
    codec: str | None, originals: dict[str | None, Path], verify: Verify
) -> None:
    before = tree(originals[codec])
    run = verify(originals[codec])
    assert (run.code, run.damage, run.of("note")) == (0, [], [])
    (part,) = run.of("partition")
    assert (part["records"], part["logStartOffset"], part["logEndOffset"]) == (RECORDS, 0, RECORDS)
    assert part["batches"] == sum(len(batches(path.read_bytes())) for path in logs(originals[codec]))
    assert part["bytes"] == sum(path.stat().st_size for path in logs(originals[codec]))
    assert tree(originals[codec]) == before


# -- damage in a .log


def flip(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


class Case(NamedTuple):
    """What is done to batch `k` of a segment, and what is to be told."""

    damage: Callable[[bytes, list[Batch], int], bytes]
    kinds: tuple[str, ...]
    lost: int = 1  # batches whose offsets are lost, from k on
    at: int = 0  # the damage begins at batch k + at


def zero(data: bytes, all_: list[Batch], k: int) -> bytes:
    return data[: all_[k].position] + bytes(all_[k].size) + data[all_[k + 1].position :]


def cut_out(data: bytes, all_: list[Batch], k: int) -> bytes:
    return data[: all_[k].position + 30] + data[all_[k + 1].position + 30 :]


def double(data: bytes, all_: list[Batch], k: int) -> bytes:
    end = all_[k + 1].position
    return data[:end] + data[all_[k].position : end] + data[end:]


def swap(data: bytes, all_: list[Batch], k: int) -> bytes:
    one, two, end = (all_[k + i].position for i in range(3))
    return data[:one] + data[two:end] + data[one:two] + data[end:]


def break_records(data: bytes, all_: list[Batch], k: int) -> bytes:
    begin, end = all_[k].position, all_[k + 1].position
    batch = bytearray(data[begin:end])
    batch[61] ^= 0x10  # the first record's length, or the magic of a compressed block
    return data[:begin] + with_right_crc(bytes(batch)) + data[end:]


CASES = {
    "a flipped value": Case(lambda d, b, k: flip(d, b[k].position + 90), ("crc",)),
    "a flipped crc": Case(lambda d, b, k: flip(d, b[k].position + 18), ("crc",)),
    "a flipped offset": Case(lambda d, b, k: flip(d, b[k].position + 6), ("order",)),
    "a negative offset": Case(lambda d, b, k: flip(d, b[k].position, 0x80), ("order",)),
    "a flipped length": Case(lambda d, b, k: flip(d, b[k].position + 11), ("crc",)),
    "a huge length": Case(lambda d, b, k: flip(d, b[k].position + 8, 0x10), ("length",)),
    "a negative length": Case(lambda d, b, k: flip(d, b[k].position + 8, 0x80), ("length",)),
    "a flipped magic": Case(lambda d, b, k: flip(d, b[k].position + 16), ("format",)),
    "zeros": Case(zero, ("length",)),
    "a piece cut out": Case(cut_out, ("crc", "length"), lost=2),
    "a batch written twice": Case(double, ("order",), lost=0, at=1),
    "two batches swapped": Case(swap, ("order",), lost=2),
    "records that do not decode": Case(break_records, ("records",)),
}


@pytest.mark.parametrize("codec", [None, "lz4"])
@pytest.mark.parametrize("what", CASES)
def test_damage_in_mid_log_is_told_with_its_place_and_repair_loses_nothing_more(
    what: str, codec: str | None, originals: dict[str | None, Path], tmp_path: Path, verify: Verify
) -> None:
    case = CASES[what]
    place = Path(shutil.copytree(originals[codec], tmp_path / "copy"))
    good = records(place)
    path = logs(place)[1 if codec is None else 0]
    whole = path.read_bytes()
    all_ = batches(whole)
    k = 3
    damaged = case.damage(whole, all_, k)
    path.write_bytes(damaged)

    run = verify(place)
    assert run.code == 1
    first, *others = run.damage
    assert first["kind"] in case.kinds
    assert first["file"] == f"orders-0/{path.name}"
    assert first["position"] == all_[k + case.at].position
    lost: set[int] = set()
    for item in run.damage:
        lost |= set(range(item["firstOffset"], item["lastOffset"] + 1)) if "firstOffset" in item else set()
    assert lost == {offset for b in all_[k : k + case.lost] for offset in range(b.first, b.last + 1)}
    assert not others

    repaired = verify(place, "--repair")
    assert repaired.code == 0, repaired
    for item in run.damage:
        kept = path.with_name(f"{path.name}.cut-{item['position']}")
        assert kept.read_bytes() == damaged[item["position"] : item["position"] + item["bytes"]]
    check_whole_again(place, {offset: value for offset, value in good.items() if offset not in lost}, verify)


def check_whole_again(place: Path, wanted: dict[int, bytes], verify: Verify, end: int = RECORDS) -> None:
    """A second look finds nothing, a consumer reads all the rest, and the log goes on where it had ended."""
    again = verify(place)
    assert (again.code, again.damage) == (0, [])
    assert records(place) == wanted
    with pylog.open(place) as log:
        with log.consumer("orders") as consumer:
            seen: dict[int, bytes] = {}
            while polled := consumer.poll():
                seen |= {record.offset: record.value for record in polled[TopicPartition("orders", 0)]}
        assert seen == wanted
        assert log.producer().send("orders", b"more", b"key").get().offset == end
    assert verify(place).code == 0


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_a_log_goes_unseen(bit: int, copy: Path, verify: Verify) -> None:
    path = logs(copy)[1]
    whole = path.read_bytes()
    unseen = []
    for position in range(0, len(whole), 7):
        path.write_bytes(flip(whole, position, 1 << bit))
        run = verify(copy)
        place = max(b.position for b in batches(whole) if b.position <= position)
        if run.code != 1 or (run.damage[0]["position"], run.damage[0]["file"]) != (place, f"orders-0/{path.name}"):
            unseen.append(position)
    # The leader epoch is under no sum, and no record shows it.
    epochs = [b.position + i for b in batches(whole) for i in range(12, 16)]
    assert set(unseen) <= set(epochs)


def test_all_damage_of_a_log_is_told_and_repaired(copy: Path, verify: Verify) -> None:
    good, lost, places = records(copy), set(), []
    for path in logs(copy)[:3]:
        data = path.read_bytes()
        for batch in batches(data)[::2]:
            data = flip(data, batch.position + 100)
            lost |= set(range(batch.first, batch.last + 1))
            places.append((f"orders-0/{path.name}", batch.position))
        path.write_bytes(data)
    assert [(item["file"], item["position"]) for item in verify(copy).damage] == places
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, {offset: value for offset, value in good.items() if offset not in lost}, verify)


def test_a_changed_offset_is_blamed_on_its_own_batch_where_gaps_are_allowed(
    golden: Path, tmp_path: Path, verify: Verify
) -> None:
    place = Path(shutil.copytree(golden / "clean", tmp_path / "copy"))
    path = place / "rolled-ms-0" / f"{0:020d}.log"
    whole = path.read_bytes()
    batch = batches(whole)[2]
    path.write_bytes(flip(whole, batch.position + 7, 2 if not batch.first & 2 else 4))
    run = verify(place, "rolled-ms")
    assert [(item["kind"], item["position"]) for item in run.damage] == [("order", batch.position)]
    assert verify(place, "rolled-ms", "--repair").code == 0


# -- ends, gaps and overlaps


def test_a_clean_log_that_lost_its_end_is_damaged_and_gives_no_offset_twice(copy: Path, verify: Verify) -> None:
    good, path = records(copy), logs(copy)[-1]
    whole = path.read_bytes()
    last = batches(whole)[-1]
    path.write_bytes(whole[:-20])
    (item,) = verify(copy).damage
    assert (item["kind"], item["position"], item["bytes"]) == ("end", last.position, last.size - 20)
    assert (item["firstOffset"], item["lastOffset"]) == (last.first, last.last)
    assert verify(copy, "--repair").code == 0
    assert path.with_name(f"{path.name}.cut-{last.position}").read_bytes() == whole[last.position : -20]
    check_whole_again(copy, {o: value for o, value in good.items() if o < last.first}, verify)


@pytest.mark.parametrize("which", [0, 1, -1], ids=["first", "middle", "last"])
def test_a_missing_segment_is_told_and_its_offsets_stay_lost(which: int, copy: Path, verify: Verify) -> None:
    good, path = records(copy), logs(copy)[which]
    gone = batches(path.read_bytes())
    for file in (copy / "orders-0").glob(f"{path.stem}.*"):
        file.unlink()
    run = verify(copy)
    assert run.code == 1
    (item,) = [item for item in run.damage if "firstOffset" in item]
    assert (item["firstOffset"], item["lastOffset"]) == (gone[0].first, gone[-1].last)
    assert item["kind"] == {0: "missing", 1: "gap", -1: "end"}[which]
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, {o: v for o, v in good.items() if not gone[0].first <= o <= gone[-1].last}, verify)


def test_segments_that_overlap_keep_each_offset_once(copy: Path, verify: Verify) -> None:
    good, path = records(copy), logs(copy)[1]
    data = path.read_bytes()
    middle = batches(data)[4].first
    path.with_name(f"{middle:020d}.log").write_bytes(data)
    run = verify(copy)
    assert run.code == 1
    assert {item["kind"] for item in run.damage} >= {"overlap"}
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, good, verify)


def test_a_directory_without_its_logs_is_damaged(copy: Path, verify: Verify) -> None:
    for path in (copy / "orders-0").iterdir():
        path.unlink()
    (item,) = [item for item in verify(copy).damage if item["kind"] == "end"]
    assert (item["firstOffset"], item["lastOffset"]) == (0, RECORDS - 1)
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, {}, verify)


@pytest.mark.parametrize("cut", [1, 60, 61, 200])
def test_a_torn_tail_of_a_directory_that_was_not_closed_is_a_note(cut: int, copy: Path, verify: Verify) -> None:
    (copy / MARK).unlink()
    (copy / "recovery-point-offset-checkpoint").write_text("0\n1\norders 0 20\n")
    good, path = records(copy), logs(copy)[-1]
    whole = path.read_bytes()
    last = batches(whole)[-1]
    torn = whole[: last.position + cut]
    path.write_bytes(torn)
    run = verify(copy)
    assert (run.code, run.damage) == (0, [])
    (note,) = [item for item in run.of("note") if item["kind"] in ("torn", "zeros")]
    assert (note["position"], note["bytes"]) == (last.position, cut)
    assert verify(copy, "--repair").code == 0
    assert path.with_name(f"{path.name}.cut-{last.position}").read_bytes() == torn[last.position :]
    check_whole_again(copy, {o: v for o, v in good.items() if o < last.first}, verify, end=last.first)


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "unclean"])
def test_zeros_behind_the_end_are_a_note(clean: bool, copy: Path, verify: Verify) -> None:
    if not clean:
        (copy / MARK).unlink()
    good, path = records(copy), logs(copy)[-1]
    size = path.stat().st_size
    os.truncate(path, size + 100_000)
    run = verify(copy)
    assert (run.code, run.damage) == (0, [])
    (note,) = run.of("note")
    assert (note["kind"], note["position"], note["bytes"]) == ("zeros", size, 100_000)
    assert verify(copy, "--repair").code == 0
    assert path.with_name(f"{path.name}.cut-{size}").stat().st_size == 100_000
    check_whole_again(copy, good, verify)


def test_readable_batches_behind_a_hole_of_an_unclean_directory_are_kept(copy: Path, verify: Verify) -> None:
    (copy / MARK).unlink()
    (copy / "recovery-point-offset-checkpoint").unlink()
    good, path = records(copy), logs(copy)[1]
    whole = path.read_bytes()
    hole = batches(whole)[2]
    path.write_bytes(flip(whole, hole.position + 80))
    assert [item["position"] for item in verify(copy).damage] == [hole.position]
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, {o: v for o, v in good.items() if not hole.first <= o <= hole.last}, verify)


def test_an_empty_batch_in_the_place_of_lost_offsets_has_kafkas_form() -> None:
    batch = empty_batch(700, 1000, 3)
    header = _native.parse_batch(batch)
    assert header is not None
    assert (header.problem, header.batch_bytes, header.base_offset, header.last_offset) == (None, 61, 700, 999)
    assert (header.leader_epoch, header.record_count, header.attributes) == (3, 0, 0)
    assert (header.base_timestamp, header.max_timestamp) == (-1, -1)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)
    assert with_right_crc(batch) == batch


# -- files beside the logs


def change(suffix: str, how: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def damage(place: Path) -> str:
        path = sorted(file for file in (place / "orders-0").glob("*" + suffix) if file.stat().st_size >= 10)[1]
        path.write_bytes(how(path.read_bytes()))
        return f"orders-0/{path.name}"

    return damage


def write(name: str, how: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def damage(place: Path) -> str:
        (place / name).write_bytes(how((place / name).read_bytes()))
        return name

    return damage


HINTS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "index, position": ("index", change(".index", lambda d: flip(d, 7))),
    "index, offset": ("index", change(".index", lambda d: flip(d, 3))),
    "index, order": ("index", change(".index", lambda d: d[8:16] + d[:8] + d[16:])),
    "index, cut": ("index", change(".index", lambda d: d[:-3])),
    "index, doubled": ("index", change(".index", lambda d: d + d)),
    "index, zeros within": ("index", change(".index", lambda d: d[:8] + bytes(8) + d[16:])),
    "timeindex, timestamp": ("timeindex", change(".timeindex", lambda d: flip(d, 7))),
    "timeindex, offset": ("timeindex", change(".timeindex", lambda d: flip(d, 11))),
    "timeindex, order": ("timeindex", change(".timeindex", lambda d: d[12:24] + d[:12] + d[24:])),
    "snapshot, cut": ("snapshot", change(".snapshot", lambda d: d[:8])),
    "recovery point, malformed": (
        "checkpoint",
        write("recovery-point-offset-checkpoint", lambda d: b"0\n7\nnonsense\n"),
    ),
    "recovery point, far beyond": (
        "checkpoint",
        write("recovery-point-offset-checkpoint", lambda d: b"0\n1\norders 0 99999999999\n"),
    ),
    "high watermark, beyond": (
        "checkpoint",
        write("replication-offset-checkpoint", lambda d: b"0\n1\norders 0 900\n"),
    ),
    "log start, beyond": ("checkpoint", lambda place: write_start(place)),
    "epochs, malformed": ("checkpoint", write("orders-0/leader-epoch-checkpoint", lambda d: b"0\n1\n")),
    "epochs, beyond": ("checkpoint", write("orders-0/leader-epoch-checkpoint", lambda d: b"0\n2\n0 0\n1 5000\n")),
    "epochs, order": ("checkpoint", write("orders-0/leader-epoch-checkpoint", lambda d: b"0\n2\n1 0\n0 50\n")),
    "metadata": ("settings", write("orders-0/partition.metadata", lambda d: b"version")),
    "clean mark": ("settings", write(MARK, lambda d: b"{")),
}


def write_start(place: Path) -> str:
    (place / "log-start-offset-checkpoint").write_text("0\n1\norders 0 5000\n")
    return "orders-0/log-start-offset-checkpoint"


@pytest.mark.parametrize("what", HINTS)
def test_a_damaged_file_beside_the_log_is_told_and_made_anew(what: str, copy: Path, verify: Verify) -> None:
    good = records(copy)
    kind, damage = HINTS[what]
    name = damage(copy)
    run = verify(copy)
    assert run.code == 1
    (item,) = run.damage
    assert item["kind"] == kind
    assert item["file"].rpartition("/")[2] == name.rpartition("/")[2]
    assert verify(copy, "--repair").code == 0
    check_whole_again(copy, good, verify)


@pytest.mark.parametrize("field", [1, 9, 17, 25, 33])
def test_a_changed_entry_of_a_txnindex_is_told(field: int, golden: Path, tmp_path: Path, verify: Verify) -> None:
    place = Path(shutil.copytree(golden / "clean", tmp_path / "copy"))
    path = next(file for file in sorted((place / "txn-0").glob("*.txnindex")) if file.stat().st_size)
    path.write_bytes(flip(path.read_bytes(), field))
    (item,) = verify(place).damage
    assert (item["kind"], item["file"]) == ("txnindex", f"txn-0/{path.name}")
    before = path.read_bytes()
    assert verify(place, "--repair").code == 0
    assert path.read_bytes() != before
    assert path.read_bytes() == (golden / "clean" / "txn-0" / path.name).read_bytes()


def test_a_flipped_bit_of_a_snapshot_is_told(golden: Path, tmp_path: Path, verify: Verify) -> None:
    place = Path(shutil.copytree(golden / "clean", tmp_path / "copy"))
    path = max((place / "txn-1").glob("*.snapshot"), key=lambda file: file.stat().st_size)
    path.write_bytes(flip(path.read_bytes(), 30))
    (item,) = verify(place).damage
    assert (item["kind"], item["file"]) == ("snapshot", f"txn-1/{path.name}")
    assert verify(place, "--repair").code == 0


def test_what_lies_around_is_noted_and_does_no_harm(copy: Path, verify: Verify) -> None:
    base = logs(copy)[0].stem
    for name in (f"orders-0/{base}.log.deleted", f"orders-0/{base}.index.cleaned", "orders-0/notes.txt", "x.tmp", "y"):
        (copy / name).write_bytes(b"x")
    (copy / "strange").mkdir()
    (copy / "orders-0" / f"{7:020d}.index").write_bytes(b"")
    run = verify(copy)
    assert (run.code, run.damage) == (0, [])
    assert {item["file"]: item["kind"] for item in run.of("note")} == {
        f"orders-0/{base}.log.deleted": "leftover",
        f"orders-0/{base}.index.cleaned": "leftover",
        f"orders-0/{7:020d}.index": "leftover",
        "orders-0/notes.txt": "unknown",
        "x.tmp": "leftover",
        "y": "unknown",
        "strange": "unknown",
    }


def test_a_partition_that_is_gone_is_damage(copy: Path, verify: Verify) -> None:
    shutil.rmtree(copy / "orders-0")
    (item,) = verify(copy).damage
    assert (item["kind"], item["file"]) == ("missing", "orders-0")


# -- live directories

WRITER = """
import sys, time, pylog
with pylog.open(sys.argv[1], segment_bytes=100_000, index_interval_bytes=200) as log, log.producer() as producer:
    i = 0
    while True:
        producer.send_many("live", [b"value %d" % j * 5 for j in range(i, i + 50)], partition=0).get()
        i += 50
        time.sleep(0.001)
        if i == 50:
            print("ready", flush=True)
"""


BROKERS_LOCK = """
import fcntl, sys, time
with open(sys.argv[1], "r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("ready", flush=True)
    time.sleep(60)
"""


def start(source: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("ready", [0, 1])
def test_a_topic_that_was_being_made_is_no_damage_and_the_next_open_makes_it(
    ready: int, tmp_path: Path, verify: Verify
) -> None:
    with pylog.open(tmp_path) as log:
        log.admin.create_topic("orders")
    content = json.loads((tmp_path / "pylog.topics").read_text())
    content["topics"]["orders"] |= {"partitions": 3, "ready": ready}
    (tmp_path / "pylog.topics").write_text(json.dumps(content))
    run = verify(tmp_path)
    assert (run.code, run.damage) == (0, [])
    assert [(note["kind"], note["file"]) for note in run.of("note")] == [("leftover", "pylog.topics")]
    with pylog.open(tmp_path) as log:
        assert len(log.admin.describe_topics()[0]["partitions"]) == 3
    assert not verify(tmp_path).of("note")


def test_a_directory_that_is_written_to_is_sound_however_often_one_looks(tmp_path: Path, verify: Verify) -> None:
    place = tmp_path / "data"
    with start(WRITER, place) as writer:
        try:
            ends = []
            for _ in range(25):
                run = verify(place)
                assert (run.code, run.damage) == (0, []), run
                ends.append(run.of("partition")[0]["logEndOffset"])
            assert ends == sorted(ends)
            assert ends[0] < ends[-1]
            refused = verify(place, "--repair")
            assert refused.code == 2
            assert "open in another process" in refused.err
        finally:
            writer.kill()
    assert verify(place).code == 0  # a torn tail at most
    assert verify(place, "--repair").code == 0


def test_damage_of_a_live_directory_is_told_but_not_what_a_dead_writer_left_behind_its_end(
    copy: Path, verify: Verify
) -> None:
    with pylog.open(copy) as log:
        log.producer().send("orders", b"one more").get()
        with logs(copy)[-1].open("ab") as file:
            file.write(b"half a batch")
        run = verify(copy)
        assert (run.code, run.damage) == (0, [])
        assert [item["kind"] for item in run.of("note")] == ["tail"], run.of("note")
        path = logs(copy)[1]
        whole = path.read_bytes()
        path.write_bytes(flip(whole, batches(whole)[1].position + 70))
        assert [item["position"] for item in verify(copy).damage] == [batches(whole)[1].position]
        path.write_bytes(whole)


def test_repair_does_not_touch_what_a_broker_has_open(copy: Path, verify: Verify) -> None:
    before = tree(copy)
    with start(BROKERS_LOCK, copy / ".lock") as process:
        try:
            run = verify(copy, "--repair")
            assert (run.code, str(process.pid) in run.err) == (2, True)
            assert verify(copy).code == 0
        finally:
            process.kill()
    assert tree(copy) == before


# -- a repair that is killed

# Kills itself at the n-th call that changes a file; prints how many there were when it comes to its end.
KILLED_REPAIR = """
import os, signal, sys
from pylog import cli
from pylog._verify import repair
place, last, control = sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3
count = 0
def step(name, function):
    def call(*arguments, **options):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
from pathlib import Path
for name in ("fsync", "open", "unlink", "rename", "replace"):
    setattr(os, name, step(name, getattr(os, name)))
for name in ("rename", "unlink"):
    setattr(Path, name, step(name, getattr(Path, name)))
repair._copy = step("copy", repair._copy)
if control:  # writes over the log in place, as one must not
    def rewrite(segment, cuts):
        data = segment.path.read_bytes()
        with segment.path.open("wb") as log:
            at = 0
            for cut in cuts:
                step("write", log.write)(data[at:cut.position])
                log.flush()
                log.write(repair.empty_batch(cut.first_offset, cut.next_offset, 0))
                at = cut.end
            step("write", log.write)(data[at:])
    repair._rewrite = rewrite
code = cli.main(["verify", place, "--repair"])
print("steps", count)
sys.exit(code)
"""


def damage_in_many_places(place: Path) -> None:
    for path in logs(place)[:3]:
        whole = path.read_bytes()
        for batch in batches(whole)[1::3]:
            whole = flip(whole, batch.position + 70)
        path.write_bytes(whole)
    logs(place)[-1].write_bytes(logs(place)[-1].read_bytes()[:-10])
    change(".index", lambda d: flip(d, 7))(place)
    write_start(place)


def killed_repair(place: Path, last: int, *control: str) -> tuple[int, int]:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_REPAIR, str(place), str(last), *control],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    steps = int(run.stdout.rpartition("steps ")[2]) if run.returncode >= 0 else 0
    return run.returncode, steps


def differs_after_kill(original: Path, last: int, wanted: dict[str, bytes], *control: str) -> bool:
    """Whether a repair that was killed at a step, and run again, ends elsewhere than one that was not."""
    place = original.with_name("killed")
    shutil.copytree(original, place)
    try:
        code, _ = killed_repair(place, last, *control)
        assert code == -signal.SIGKILL
        assert killed_repair(place, 0)[0] in (0, 1)
        return tree(place) != wanted
    finally:
        shutil.rmtree(place)


@pytest.fixture
def damaged(copy: Path) -> Path:
    damage_in_many_places(copy)
    return copy


def test_a_repair_that_is_killed_anywhere_and_run_again_ends_in_the_same_files(damaged: Path) -> None:
    place = Path(shutil.copytree(damaged, damaged.with_name("whole")))
    code, steps = killed_repair(place, 0)
    assert code == 0
    assert steps > 30
    points = range(1, steps + 1)
    chosen = points if steps <= KILLS else sorted(random.Random(SEED).sample(points, KILLS))
    wrong = [last for last in chosen if differs_after_kill(damaged, last, tree(place))]
    assert wrong == [], f"of {len(chosen)} of {steps} steps, seed {SEED}"


def test_a_repair_that_writes_in_place_is_caught(damaged: Path) -> None:
    place = Path(shutil.copytree(damaged, damaged.with_name("whole")))
    _, steps = killed_repair(place, 0, "control")
    wanted = tree(place)
    # A third of the way: where the second segment is written.
    points = range(steps // 3, steps, 2)
    assert any(differs_after_kill(damaged, last, wanted, "control") for last in points)


def test_bytes_that_were_kept_before_are_not_written_over(copy: Path, verify: Verify) -> None:
    path = logs(copy)[1]
    batch = batches(path.read_bytes())[2]
    earlier = path.with_name(f"{path.name}.cut-{batch.position}")
    earlier.write_bytes(b"of another time")
    damaged = flip(path.read_bytes(), batch.position + 70)
    path.write_bytes(damaged)
    assert verify(copy, "--repair").code == 0
    assert earlier.read_bytes() == b"of another time"
    kept = path.with_name(f"{earlier.name}.1").read_bytes()
    assert kept == damaged[batch.position : batch.position + batch.size]


# -- the command


def test_names_choose_topics_and_partitions(tmp_path: Path, verify: Verify) -> None:
    with pylog.open(tmp_path / "data", num_partitions=2) as log:
        for topic, partition in itertools.product(("a", "b"), (0, 1)):
            log.producer().send(topic, b"x", partition=partition).get()
    chosen = [item["partition"] for item in verify(tmp_path / "data", "b", "a-1").of("partition")]
    assert chosen == ["a-1", "b-0", "b-1"]
    assert verify(tmp_path / "data", "c").code == 2
    assert verify(tmp_path / "nothing").code == 2
    assert verify(tmp_path / "nothing", "--repair").code == 2
    assert not (tmp_path / "nothing").exists()


def test_what_cannot_be_looked_at_is_said_and_the_rest_looked_at(tmp_path: Path, verify: Verify) -> None:
    with pylog.open(tmp_path / "data") as log:
        log.producer().send("a", b"x").get()
        log.producer().send("b", b"x").get()
    os.truncate(tmp_path / "data" / "a-0" / f"{0:020d}.log", 1 << 31)
    run = verify(tmp_path / "data")
    assert run.code == 2
    assert "a-0" in run.err
    assert [item["records"] for item in run.of("partition") if item["partition"] == "b-0"] == [1]


def test_text_says_what_and_where(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs(copy)[1]
    batch = batches(path.read_bytes())[2]
    path.write_bytes(flip(path.read_bytes(), batch.position + 70))
    assert cli.main(["verify", str(copy)]) == 1
    title, row, line, last = capsys.readouterr().out.splitlines()
    assert title.split()[:2] == ["PARTITION", "SEGMENTS"]
    assert row.split()[0] == "orders-0"
    assert line.startswith(f"orders-0/{path.name}: crc 0x")
    assert line.endswith(f"position {batch.position}, {batch.size} bytes, offsets {batch.first}-{batch.last}")
    assert last.startswith("1 problem; --repair")


def test_a_bar_is_drawn_on_a_terminal_and_nowhere_else(copy: Path) -> None:
    command = [sys.executable, "-m", "pylog", "verify", str(copy)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert piped.stderr == b""
    ours, theirs = pty.openpty()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    assert b"\x1b[K" in os.read(ours, 1000)
    os.close(ours)


def test_the_bar_tells_how_far_how_fast_and_how_long() -> None:
    progress = Progress(4 << 30)
    progress.passed(1 << 30)
    line = progress.line(0.5, 100)
    assert "25%  1.0 GiB of 4.0 GiB  2.0 GiB/s  0:01 left" in line
    assert "█" in line
    assert all(len(progress.line(0.5, columns)) < columns for columns in range(2, 120))


def test_other_threads_run_while_a_log_is_walked(tmp_path: Path) -> None:
    with pylog.open(tmp_path / "data", flush_ms=None) as log:
        log.producer().send_many("a", [bytes(1000)] * 100_000).get()
    counted = 0
    done = threading.Event()

    def run() -> None:
        cli.main(["verify", "--json", str(tmp_path / "data")])
        done.set()

    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        thread = threading.Thread(target=run)
        thread.start()
        while not done.is_set():
            counted += 1
        thread.join()
    finally:
        sys.stdout = out
    assert counted > 10_000


def test_links_are_not_followed(copy: Path, tmp_path: Path, verify: Verify) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(logs(copy)[0].read_bytes())
    path = logs(copy)[0]
    path.unlink()
    path.symlink_to(target)
    run = verify(copy)
    assert run.code == 1
    assert {"kind": "format", "file": f"orders-0/{path.name}", "message": "not a plain file"}.items() <= run.damage[
        0
    ].items()
