"""Opening read_only changes nothing, and needs no right to change anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pylog

from .golden import PARTITIONS, SIDES, contents, expected, name, rows

READ_ALL = """
import sys, pylog
with pylog.open(sys.argv[1], read_only=True) as log:
    for topic in log.admin.list_topics():
        count = sum(1 for record in log.read(topic))
        assert count == sum(len(columns) for columns in log.scan(topic)), topic
        print(topic, count)
"""


def use_everything(log: pylog.Log) -> None:
    """Every way of reading, over every partition."""
    log.admin.describe_topics()
    log.flush()
    for tp in PARTITIONS:
        list(log.read(*tp))
        list(log.scan(*tp, isolation_level="read_committed"))
        with log.consumer() as consumer:
            consumer.assign([tp])
            consumer.offsets_for_times({tp: 1_760_000_000_000})
            consumer.poll()
    log.flushed_offsets(PARTITIONS)


@pytest.mark.parametrize("side", SIDES)
def test_read_only_changes_no_byte_no_name_and_no_time_of_a_file(golden: Path, tmp_path: Path, side: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(golden / side, data)
    before = contents(data)
    with pylog.open(data, read_only=True) as log:
        use_everything(log)
    assert contents(data) == before


@pytest.mark.parametrize("side", SIDES)
def test_read_only_refuses_every_write_and_leaves_the_files_alone(golden: Path, tmp_path: Path, side: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(golden / side, data)
    before = contents(data)
    tp = PARTITIONS[0]
    with pylog.open(data, read_only=True) as log:
        for write in (
            log.producer,
            lambda: log.admin.create_topic("new"),
            lambda: log.admin.create_partitions({tp.topic: 3}),
            lambda: log.admin.delete_topics([tp.topic]),
            lambda: log.admin.delete_records({tp: 5}),
            lambda: log.admin.alter_configs(tp.topic, retention_ms=1),
        ):
            with pytest.raises(pylog.IllegalStateError, match="read_only"):
                write()
    assert contents(data) == before


@pytest.mark.parametrize("side", SIDES)
def test_a_directory_that_cannot_be_written_is_read(golden: Path, tmp_path: Path, side: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(golden / side, data)
    command = [sys.executable, "-c", READ_ALL, str(data)]
    if os.geteuid() == 0:  # permissions do not bind root: a mount does, in a namespace of its own
        mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ! touch "$1/x" && shift && exec "$@"'
        if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
            pytest.skip("root without the right to mount: nothing here is read-only")
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(data), *command]
    else:
        for path in [data, *data.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        for path in [data, *(path for path in data.rglob("*") if path.is_dir())]:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    counts = {topic: int(count) for topic, count in (line.split() for line in done.stdout.splitlines())}
    for topic in {tp.topic for tp in PARTITIONS}:
        assert counts[topic] == sum(len(expected(golden, tp).rows) for tp in PARTITIONS if tp.topic == topic), topic


def test_a_directory_that_a_writer_has_open_is_read(golden: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(golden / "clean", data)
    with pylog.open(data), pylog.open(data, read_only=True) as reader:
        for tp in PARTITIONS:
            assert rows(reader.read(*tp)) == expected(golden, tp).rows, name(tp)
