"""A real Apache Kafka for tests: its jars by Maven, its command-line tools, and a broker of one node.

What it needs is java 17 or later and mvn; missing() says what is not there.  The jars (55 MB) are fetched once and kept
in the user's cache directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

VERSION = "4.3.1"
JAVA_VERSION_MIN = 17
START_SECONDS_MAX = 90
IDLE_SECONDS_MAX = 30
CLUSTER_ID = "cHlsb2ctdGVzdHMtMDAwMQ"

Row = tuple[int, int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]

Partition = tuple[str, int]

NOT_READY = (
    confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION,
    confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE,
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
)

LOG4J = """
status = error
appender.file.type = Console
appender.file.name = err
appender.file.target = SYSTEM_ERR
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.err.ref = err
logger.logs.name = kafka.log
logger.logs.level = info
logger.storage.name = org.apache.kafka.storage.internals.log
logger.storage.level = info
"""


def missing() -> str | None:
    """Why no broker can be run here; None: one can."""
    absent = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if absent:
        return f"no {'/'.join(absent)}: install default-jre-headless and maven"
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', shown)
    if found is None or int(found[1]) < JAVA_VERSION_MIN:
        return f"java {JAVA_VERSION_MIN} or later is needed, not {shown.splitlines()[:1]}: install default-jre-headless"
    return None


def jars() -> Path:
    """The folder with Kafka's jars, fetched if they are not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pylog-tests"
    home = cache / f"kafka-{VERSION}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fetched = Path(tempfile.mkdtemp(prefix="fetching-", dir=cache))
        pom = Path(__file__).with_name("pom.xml")
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={fetched}", f"-Dkafka.version={VERSION}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(fetched)
            raise RuntimeError(f"Maven could not fetch Kafka {VERSION}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        try:
            fetched.rename(home)
        except OSError:  # another test run was faster
            shutil.rmtree(fetched)
    return home


def java(main_class: str, *arguments: object, log4j: Path | None = None, heap: str = "512m") -> list[str]:
    """The command that runs one of Kafka's classes."""
    logging = [f"-Dlog4j2.configurationFile={log4j}"] if log4j else []
    return [
        "java",
        f"-Xmx{heap}",
        "-XX:TieredStopAtLevel=1",
        *logging,
        "-cp",
        f"{jars()}/*",
        main_class,
        *map(str, arguments),
    ]


def dump_log(data: Path, files: list[str], *flags: str) -> tuple[dict[str, list[str]], str]:
    """What kafka-dump-log prints of each of the files (named from `data`), and what it says on standard error."""
    command = java("org.apache.kafka.tools.DumpLogSegments", *flags, "--files", ",".join(files))
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, errors="replace", check=False)
    shown: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith("Dumping "):
            lines = shown.setdefault(line.removeprefix("Dumping "), [])
        else:
            lines.append(line)
    return shown, done.stderr if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr}"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


class Broker:
    """A broker over a data directory, running inside `with`; it can be started again, also after kill()."""

    def __init__(self, data: Path, work: Path, settings: Mapping[str, object] | None = None) -> None:
        self.data = data
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self._log4j = work / "log4j2.properties"
        self._log4j.write_text(LOG4J)
        self._output = work / "broker.log"
        self._properties = work / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._seen_bytes = 0
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        listener = f"PLAINTEXT://{self.address}"
        lines: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{listener},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listener,
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 2,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 2,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.retention.ms": -1,  # the records of tests keep their times, which grow old
            "log.retention.check.interval.ms": 86_400_000,
            "broker.session.timeout.ms": 3_000,  # how long a killed one's successor has to wait
            "broker.heartbeat.interval.ms": 500,
            **(settings or {}),
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    def format(self) -> None:
        """Make the directory a broker's, unless it is one."""
        if not (self.data / "meta.properties").exists():
            command = java(
                "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", self._properties, log4j=self._log4j
            )
            subprocess.run(command, check=True, capture_output=True)

    def start(self) -> Self:
        """Start, and wait until it answers."""
        self.format()
        self._seen_bytes = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            command = java("kafka.Kafka", self._properties, log4j=self._log4j)
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._admin().list_topics(timeout=2)
                return self
            except confluent_kafka.KafkaException:
                time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"the broker did not start: {self.said()[-3000:]}")

    def stop(self) -> None:
        """A clean stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            if error is None:
                self.stop()
            else:
                self.kill()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """What it has logged since its last start."""
        with self._output.open("rb") as output:
            output.seek(self._seen_bytes)
            return output.read().decode(errors="replace")

    # -- clients

    def create(self, topics: Mapping[str, tuple[int, Mapping[str, object]]]) -> None:
        """Make topics: name -> number of partitions, settings in pylog's spelling."""
        wanted = [
            NewTopic(name, partitions, 1, config={key.replace("_", "."): str(value) for key, value in config.items()})
            for name, (partitions, config) in topics.items()
        ]
        admin = self._admin()  # it must outlive its futures
        for future in admin.create_topics(wanted).values():
            future.result(60)

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(30)

    def topic_ids(self) -> dict[str, str]:
        """The id of each topic, as text."""
        admin = self._admin()
        names = [name for name in admin.list_topics(timeout=30).topics if not name.startswith("__")]
        described = admin.describe_topics(confluent_kafka.TopicCollection(names))
        return {name: str(future.result(30).topic_id) for name, future in described.items()}

    def producer(self, **config: Any) -> confluent_kafka.Producer:
        """A real producer; settings of librdkafka with underscores for the dots."""
        named = {key.replace("_", "."): value for key, value in config.items()}
        return confluent_kafka.Producer({"bootstrap.servers": self.address, "linger.ms": 5, "log_level": 0, **named})

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """Log start and end offset."""
        return self.all_ends([(topic, partition)])[topic, partition]

    def all_ends(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """Log start and end offset of each."""
        deadline = time.monotonic() + IDLE_SECONDS_MAX
        with contextlib.closing(self._consumer("read_uncommitted")) as consumer:

            def ask(wanted: confluent_kafka.TopicPartition) -> tuple[int, int]:
                while True:
                    try:
                        low, high = consumer.get_watermark_offsets(wanted, timeout=IDLE_SECONDS_MAX)
                        return int(low), int(high)
                    except confluent_kafka.KafkaException as problem:  # just started: not yet the partition's leader
                        if problem.args[0].code() not in NOT_READY or time.monotonic() > deadline:
                            raise
                        time.sleep(0.1)

            return {(topic, number): ask(confluent_kafka.TopicPartition(topic, number)) for topic, number in partitions}

    def read(self, topic: str, partition: int = 0, start: int = 0, *, committed: bool = False) -> list[Row]:
        """Every record from an offset on, as a real consumer reads it, sums checked."""
        return self.read_all({(topic, partition): start}, committed=committed)[topic, partition]

    def read_all(self, starts: Mapping[Partition, int], *, committed: bool = False) -> dict[Partition, list[Row]]:
        """The same of several partitions: (topic, partition) -> offset to begin with."""
        rows: dict[Partition, list[Row]] = {(topic, number): [] for topic, number in starts}
        unfinished = set(rows)
        with contextlib.closing(self._consumer("read_committed" if committed else "read_uncommitted")) as consumer:
            consumer.assign([confluent_kafka.TopicPartition(*partition, start) for partition, start in starts.items()])
            deadline = time.monotonic() + IDLE_SECONDS_MAX
            while unfinished:
                message = consumer.poll(1)
                if message is None:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"neither a record nor the end for {IDLE_SECONDS_MAX} s: {unfinished}")
                    continue
                deadline = time.monotonic() + IDLE_SECONDS_MAX
                partition: Partition = message.topic(), message.partition()  # type: ignore[assignment]
                problem = message.error()
                if problem is None:
                    rows[partition].append(message_row(message))
                elif problem.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    unfinished.discard(partition)
                elif not problem.retriable():
                    raise RuntimeError(f"{partition}: {problem}")
        return rows

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def _consumer(self, isolation_level: str) -> confluent_kafka.Consumer:
        return confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.address,
                "log_level": 0,
                "group.id": "not used",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "check.crcs": True,
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 4 << 20,
                "isolation.level": isolation_level,
            }
        )


def message_row(message: Any) -> Row:
    """A consumed message: offset, timestamp, its type (0 CreateTime, 1 LogAppendTime), key, value, headers."""
    kind, timestamp = message.timestamp()
    headers = tuple(message.headers() or ())
    types = {confluent_kafka.TIMESTAMP_CREATE_TIME: 0, confluent_kafka.TIMESTAMP_LOG_APPEND_TIME: 1}
    return message.offset(), timestamp, types[kind], message.key(), message.value(), headers


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something that the broker does in its own time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
