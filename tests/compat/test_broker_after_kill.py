"""A broker that opens what a killed pylog process left: zeros ahead of the end, no clean mark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pylog
from pylog import TopicPartition

from .kafka import Broker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("broker_tools")]

ORDERS = TopicPartition("orders", 0)
ROOT = Path(pylog.__file__).parents[1]
PRODUCE_AND_DIE = """
import os, signal, sys, pylog
log = pylog.open(sys.argv[1])
producer = log.producer(acks="all")
for number in range(50):
    producer.send("orders", b"pylog %d" % number).get()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_zeros_ahead_of_a_killed_process_s_log_are_cut_off_by_the_broker(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Broker(data, tmp_path / "work") as broker:
        broker.create({"orders": (1, {})})
        producer = broker.producer()
        producer.produce("orders", b"broker", partition=0)
        producer.flush()
        broker.stop()
        died = subprocess.run(
            [sys.executable, "-c", PRODUCE_AND_DIE, str(data)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert died.returncode == -signal.SIGKILL
        path = data / "orders-0" / f"{0:020d}.log"
        left = path.read_bytes()
        assert left.endswith(bytes(10_000))
        broker.start()
        values = [row[4] for row in broker.read(*ORDERS)]
        assert values == [b"broker", *(b"pylog %d" % number for number in range(50))]
        producer = broker.producer()
        producer.produce("orders", b"broker again", partition=0)
        producer.flush()
        assert broker.ends(*ORDERS) == (0, 52)
    with pylog.open(data) as log:
        assert [record.value for record in log.read("orders")] == [*values, b"broker again"]
    assert path.stat().st_size < len(left.rstrip(b"\0")) + 200
