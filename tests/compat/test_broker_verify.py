"""A broker's directory under `pylog verify`: while it runs, and repaired, in its own hands again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pylog import TopicPartition, cli

from .golden import batches
from .kafka import Broker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("broker_tools")]

ORDERS = TopicPartition("orders", 0)
RECORDS = 200
COMPLAINT = re.compile(r" ERROR |(?i:corrupt|truncating|stray)")


def produce(broker: Broker, count: int) -> None:
    producer = broker.producer()
    for i in range(count):
        producer.produce("orders", b"value %d " % i * 10, b"key", partition=0)
        if i % 5 == 4:
            producer.flush()


def test_a_broker_goes_on_with_a_log_that_was_repaired(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    with Broker(data, tmp_path / "work") as broker:
        broker.create({"orders": (1, {"segment.bytes": 1 << 20, "index.interval.bytes": 256})})
        produce(broker, RECORDS)
        assert cli.main(["verify", str(data)]) == 0
        assert cli.main(["verify", str(data), "--repair"]) == 2
        assert "in use by process" in capfd.readouterr().err
        whole = broker.read(*ORDERS)
        broker.stop()
        assert cli.main(["verify", str(data)]) == 0

        path = data / "orders-0" / f"{0:020d}.log"
        damaged = bytearray(path.read_bytes())
        hurt = list(batches(path))[3::7]
        for batch in hurt:
            damaged[batch.position + 90] ^= 1
        path.write_bytes(damaged)
        lost = {offset for batch in hurt for offset in range(batch.base_offset, batch.last_offset + 1)}
        assert 0 < len(lost) < RECORDS
        assert cli.main(["verify", str(data)]) == 1
        assert cli.main(["verify", str(data), "--repair"]) == 0

        broker.start()
        rest = [row for row in whole if row[0] not in lost]
        assert broker.read(*ORDERS) == rest
        produce(broker, 10)
        assert broker.ends(*ORDERS) == (0, RECORDS + 10)
        assert not COMPLAINT.findall(broker.said())
        broker.kill()  # so that the next start recovers it, batch by batch
        broker.start()
        assert broker.read(*ORDERS)[: len(rest)] == rest
        assert not COMPLAINT.findall(broker.said())
        assert cli.main(["verify", str(data)]) == 0
        capfd.readouterr()
