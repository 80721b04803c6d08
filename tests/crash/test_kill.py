"""kill -9: nothing acknowledged is lost, offsets are dense, nothing is there twice, what was not acknowledged is whole.

PYLOG_KILLS is the number of kills (pytest -s tells how it went); a release asks for thousands.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import pylog
from pylog import TopicPartition

sys.path.insert(0, str(Path(__file__).parent))
from kill_child import ACKNOWLEDGED, PARTITIONS, produce, value

sys.path.pop(0)

KILLS = int(os.environ.get("PYLOG_KILLS", "15"))
KILLS_OF_A_LOG = 10
ROOT = Path(pylog.__file__).parents[1]  # where the children find the pylog that is tested
TPS = [TopicPartition("orders", number) for number in range(PARTITIONS)]


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one: fsync costs nothing there, and a kill leaves the page cache whole."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pylog-kill-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


def produce_and_kill(directory: Path, seed: int, seconds: float, liar: bool = False) -> list[tuple[int, int]]:
    """Let the child produce, kill it after its first word and so many seconds; what it has acknowledged."""
    told_fd, telling_fd = os.pipe()
    pid = os.fork()  # a new interpreter for each of thousands would cost more than all the rest
    if pid == 0:
        try:
            os.dup2(telling_fd, 1)
            produce(str(directory), seed, liar)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(telling_fd)
    told = os.read(told_fd, ACKNOWLEDGED.size)
    deadline = time.monotonic() + seconds
    os.set_blocking(told_fd, False)
    while (left := deadline - time.monotonic()) > 0:  # a full pipe would hold the child up
        with contextlib.suppress(BlockingIOError):
            told += os.read(told_fd, 1 << 20)
        time.sleep(min(left, 0.002))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    os.set_blocking(told_fd, True)
    while more := os.read(told_fd, 1 << 20):
        told += more
    os.close(told_fd)
    return list(ACKNOWLEDGED.iter_unpack(told[: len(told) // ACKNOWLEDGED.size * ACKNOWLEDGED.size]))


def check(log: pylog.Log, acknowledged: list[int]) -> None:
    """Each partition has its records from its start on without gap, each whole, and all that was acknowledged."""
    with log.consumer() as consumer:
        starts, ends = consumer.beginning_offsets(TPS), consumer.end_offsets(TPS)
    for tp in TPS:
        read = list(log.read(*tp))
        assert [record.offset for record in read] == list(range(starts[tp], ends[tp]))
        for record in read:
            assert record.value == value(tp.partition, record.offset)
        assert ends[tp] >= acknowledged[tp.partition], f"{tp}: lost {acknowledged[tp.partition] - ends[tp]}"


def test_nothing_acknowledged_is_lost_by_kill_9(memory_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance = random.Random(seed)
    acknowledged, total = [0] * PARTITIONS, 0
    for kill in range(KILLS):
        if kill % KILLS_OF_A_LOG == 0:  # each looks at all of its log
            acknowledged, directory = [0] * PARTITIONS, memory_path / str(kill)
        seconds = chance.choice((0, 0.01, 0.05, 0.1, 0.3)) * chance.random()
        for partition, offset in produce_and_kill(directory, seed + kill, seconds):
            assert offset == acknowledged[partition]
            acknowledged[partition] += 1
            total += 1
        if kill % 3 == 0:  # else the next child itself recovers
            with pylog.open(directory) as log:
                check(log, acknowledged)
                acknowledged = list(log.consumer().end_offsets(TPS).values())
        else:
            with pylog.open(directory, read_only=True) as log:
                check(log, acknowledged)
                acknowledged = list(log.consumer().end_offsets(TPS).values())
        if kill % KILLS_OF_A_LOG == KILLS_OF_A_LOG - 1 or kill == KILLS - 1:
            assert min(acknowledged) > 0
            assert len(list(directory.glob("orders-?/*.log"))) > PARTITIONS
            shutil.rmtree(directory)
    print(f"{KILLS:,} kills, {total:,} records acknowledged, none lost")


def test_control_acknowledgements_before_the_append_are_seen_as_loss(memory_path: Path) -> None:
    for attempt in range(30):
        told = produce_and_kill(memory_path / str(attempt), attempt, 0.02, liar=True)
        acknowledged = [max((offset + 1 for p, offset in told if p == partition), default=0) for partition in range(3)]
        with pylog.open(memory_path / str(attempt)) as log:
            try:
                check(log, acknowledged)
            except AssertionError as error:
                assert "lost" in str(error)
                return
    pytest.fail("acknowledgements that were lies were not noticed")


# -- recovery


def killed(directory: Path, source: str) -> None:
    """Run a program that ends by SIGKILL."""
    program = f"import os, signal, pylog\nlog = pylog.open({str(directory)!r}, flush_ms=None, segment_bytes=10_000)\n"
    done = subprocess.run(
        [sys.executable, "-c", program + source + "\nos.kill(os.getpid(), signal.SIGKILL)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def recovery(log: pylog.Log) -> pylog._native.Recovery:
    return log.topic("orders").partition(0).native.recovery


FILL = "p = log.producer(batch_size=500)\np.send_many('orders', [bytes(100)] * {}).get()"


def test_recovery_scans_no_further_back_than_the_recovery_point(tmp_path: Path) -> None:
    killed(tmp_path, FILL.format(2000) + "\nlog.flush()\np.send_many('orders', [bytes(100)] * 20).get()")
    total = sum(path.stat().st_size for path in (tmp_path / "orders-0").glob("*.log"))
    with pylog.open(tmp_path) as log:
        # Back to the recovery point's segment at the most, never into those before it.
        assert 20 * 100 < recovery(log).scanned_bytes <= 20_000 < total / 5
        assert len(list(log.read("orders"))) == 2020


def test_without_a_recovery_point_recovery_scans_all_and_finds_all(tmp_path: Path) -> None:
    killed(tmp_path, "log._checkpointing = log.flusher._checkpoint_is_due = True\n" + FILL.format(500))
    total = sum(path.stat().st_size for path in (tmp_path / "orders-0").glob("*.log"))
    with pylog.open(tmp_path) as log:
        assert recovery(log).scanned_bytes == total
        assert len(list(log.read("orders"))) == 500


def test_a_clean_close_leaves_nothing_to_scan(tmp_path: Path) -> None:
    killed(tmp_path, FILL.format(500) + "\nlog.close()")
    with pylog.open(tmp_path) as log:
        assert recovery(log).scanned_bytes == 0
        assert len(list(log.read("orders"))) == 500


def test_a_torn_tail_is_cut_to_the_last_whole_batch(tmp_path: Path) -> None:
    killed(tmp_path, "p = log.producer()\nfor i in range(5): p.send('orders', b'%d' % i).get()")
    segment = tmp_path / "orders-0" / f"{0:020d}.log"
    whole = segment.read_bytes()
    batch_bytes = len(whole) // 5
    for cut in (1, batch_bytes - 1, batch_bytes, batch_bytes + 1):
        segment.write_bytes(whole[:-cut])
        with pylog.open(tmp_path) as log:
            expected = [b"%d" % i for i in range(4 if cut <= batch_bytes else 3)]
            assert [record.value for record in log.read("orders")] == expected
            assert recovery(log).truncated_bytes == (batch_bytes * 5 - cut) - len(expected) * batch_bytes
            assert log.producer().send("orders", b"next").get().offset == len(expected)
        (tmp_path / ".kafka_cleanshutdown").unlink()
        (tmp_path / "recovery-point-offset-checkpoint").unlink()


@pytest.mark.parametrize("garbage", [bytes(5000), b"\xff" * 5000, b"garbage" * 700])
def test_what_lies_behind_the_last_batch_is_cut_and_never_comes_back(garbage: bytes, tmp_path: Path) -> None:
    killed(tmp_path, "p = log.producer()\nfor i in range(5): p.send('orders', b'%d' % i).get()")
    with (tmp_path / "orders-0" / f"{0:020d}.log").open("ab") as segment:
        segment.write(garbage)
    for round_number in range(3):
        with pylog.open(tmp_path) as log:
            assert recovery(log).truncated_bytes == (len(garbage) if round_number == 0 else 0)
            assert [record.offset for record in log.read("orders")] == list(range(5 + round_number))
            log.producer().send("orders", b"x").get()


def test_recovery_may_be_killed_and_run_again(tmp_path: Path) -> None:
    killed(tmp_path, FILL.format(500))
    with (tmp_path / "orders-0" / f"{0:020d}.log").open("rb") as segment:
        first = segment.read()
    for _ in range(3):
        killed(tmp_path, "log.topic('orders').partition(0).native.state()")
    with pylog.open(tmp_path) as log:
        assert len(list(log.read("orders"))) == 500
    assert (tmp_path / "orders-0" / f"{0:020d}.log").read_bytes() == first
