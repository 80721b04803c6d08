"""KafkaProducer over a directory."""

from __future__ import annotations

import itertools
import random
import threading
import time
from typing import Any, Literal

from ... import _future
from ..._closing import Closing
from ..._future import Batch
from ..._producer import Producer
from .. import _options
from .._logs import acquire, release
from .._metrics import Meter, shown
from ..cluster import ClusterMetadata
from ..consumer.fetcher import header_bytes
from ..errors import (
    IllegalStateError,
    KafkaConfigurationError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnsupportedCodecError,
    UnsupportedVersionError,
)
from ..partitioner import DefaultPartitioner
from ..serializer import Headers, close_serializer, conversion
from .future import FutureRecordMetadata

ACKS: dict[Any, Literal[0, 1, "all"]] = {-1: "all", "all": "all", 0: 0, 1: 1}
IN_FLIGHT_MAX = 5
# What a record takes beside its key, value and headers, in a batch of its own, at most.
RECORD_OVERHEAD_BYTES = 61 + 21
_numbers = itertools.count(1)


class KafkaProducer(Closing):
    """Sends records to the directory that bootstrap_servers names.  Thread-safe.

    Options and their defaults are kafka-python's (docs/kafka-python.md tells which mean something).  Raises ValueError
    for an unknown one, KafkaConfigurationError for values that do not go together, UnsupportedVersionError for a
    transactional_id, and what pylog.open raises.
    """

    DEFAULT_CONFIG = _options.PRODUCER

    def __init__(self, **configs: Any) -> None:
        self.config = _options.complete("KafkaProducer", self.DEFAULT_CONFIG, configs, ValueError)
        if self.config["client_id"] is None:
            self.config["client_id"] = f"kafka-python-producer-{next(_numbers)}"
        if self.config["transactional_id"]:
            raise UnsupportedVersionError("transactional_id: this version of pylog has no transactions yet")
        self._check_idempotence(configs)
        self._key_to = conversion(self.config["key_serializer"], "serialize", option="key_serializer")
        self._value_to = conversion(self.config["value_serializer"], "serialize", option="value_serializer")
        self._partitioner = self.config["partitioner"]
        self._by_default = type(self._partitioner) is DefaultPartitioner
        method = getattr(self._partitioner, "partition", self._partitioner)
        if isinstance(self._partitioner, str) or not callable(method):
            raise KafkaConfigurationError(f"partitioner must have the method partition, not {self._partitioner!r}")
        self._batches: dict[str, tuple[int, Batch]] = {}  # of records without a key, where the partitioner asks for it
        self._meter = Meter()
        self._meter_lock = threading.Lock()
        self._closed = False
        self._log = acquire(self.config["bootstrap_servers"])
        try:
            self._producer = self._make_producer()
        except BaseException:
            release(self._log)
            raise
        self._cluster = ClusterMetadata(self._log)

    def _make_producer(self) -> Producer:
        codec = self.config["compression_type"]
        if codec not in (None, "gzip", "snappy", "lz4", "zstd"):
            raise ValueError(f"compression_type {codec!r}: there are None, 'gzip', 'snappy', 'lz4' and 'zstd'")
        try:
            return self._log.producer(
                acks=ACKS[self.config["acks"]],
                linger_ms=self.config["linger_ms"],
                batch_size=self.config["batch_size"],
                compression_type=codec,
                max_block_ms=self.config["max_block_ms"],
            )
        except UnsupportedCodecError as error:
            raise RuntimeError(str(error)) from error

    def _check_idempotence(self, given: dict[str, Any]) -> None:
        """A record is never written twice, whatever the options say; those that contradict each other are refused."""
        if self.config["acks"] not in ACKS or isinstance(self.config["acks"], bool):
            raise KafkaConfigurationError(f"acks must be 0, 1, -1 or 'all', not {self.config['acks']!r}")
        against = {"acks": ACKS[self.config["acks"]] != "all", "retries": self.config["retries"] == 0}
        in_flight = "max_in_flight_requests_per_connection"
        against[in_flight] = self.config[in_flight] > IN_FLIGHT_MAX
        broken = [f"{name}={given[name]!r}" for name, is_against in against.items() if is_against and name in given]
        if broken and self.config["enable_idempotence"]:
            if "enable_idempotence" in given:
                raise KafkaConfigurationError(f"enable_idempotence=True does not go with {', '.join(broken)}")
            self.config["enable_idempotence"] = False

    # -- sending

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata:
        """Send one record; a topic that does not exist is made unless allow_auto_create_topics forbids it.

        value, key: bytes-like or None, or what the serializers take; one of them at least.  headers: a list of (str,
        bytes); timestamp_ms: milliseconds since 1970, None: now.  Raises ValueError for a partition that is not there,
        TypeError for other types, MessageSizeTooLargeError, IllegalStateError once closed, KafkaTimeoutError where the
        topic may not be made and does not appear within max_block_ms.
        """
        self._check_open()
        if value is None and key is None:
            raise ValueError("a record needs a key or a value")
        if headers is not None:
            _check_headers(headers)
        key_bytes = key if self._key_to is None else self._key_to(topic, headers or [], key)
        value_bytes = value if self._value_to is None else self._value_to(topic, headers or [], value)
        sizes = _size("key", key_bytes), _size("value", value_bytes), header_bytes(headers) if headers else -1
        record_bytes = RECORD_OVERHEAD_BYTES + sum(size for size in sizes if size > 0)
        if record_bytes > self.config["max_request_size"]:
            raise MessageSizeTooLargeError(
                f"the record for topic {topic} takes {record_bytes} bytes, max_request_size is "
                f"{self.config['max_request_size']}"
            )
        chosen = partition
        if partition is not None or key_bytes is None or not self._by_default:
            chosen = self._choose(topic, partition, key, key_bytes, value, value_bytes)
        elif not self.config["allow_auto_create_topics"]:
            self._count(topic)
        sent = self._producer.send(topic, value_bytes, key_bytes, headers, chosen, timestamp_ms)
        if partition is None and key_bytes is None and not self._by_default:
            self._note_batch(topic, sent)
        with self._meter_lock:
            self._meter.add(record_bytes)
        return FutureRecordMetadata(sent, *sizes)

    def _choose(self, topic: str, partition: int | None, key: Any, key_bytes: Any, value: Any, value_bytes: Any) -> int:
        count = self._count(topic)
        if partition is not None:
            if not 0 <= partition < count:
                raise ValueError(f"partition {partition}: topic {topic} has 0 to {count - 1}")
            return partition
        if self._by_default:
            return random.randrange(count)  # noqa: S311 - spreads load, guards nothing
        if hasattr(self._partitioner, "partition"):
            chosen = self._partitioner.partition(topic, key, key_bytes, value, value_bytes, self._cluster)
        else:
            everything = list(range(count))  # a function, as kafka-python 2 takes it
            chosen = self._partitioner(key_bytes, everything, everything)
        if type(chosen) is not int or not 0 <= chosen < count:
            raise ValueError(f"the partitioner chose {chosen!r}: topic {topic} has partitions 0 to {count - 1}")
        return chosen

    def _count(self, topic: str) -> int:
        """How many partitions the topic has; it is made, or waited for."""
        if self.config["allow_auto_create_topics"]:
            return len(self._log.topic_for_sending(topic).partitions)
        deadline = time.monotonic() + self.config["max_block_ms"] / 1000
        while True:
            seen = self._log.bell.read()
            partitions = self._cluster.partitions_for_topic(topic)
            if partitions:
                return len(partitions)
            left = deadline - time.monotonic()
            if left <= 0:
                raise KafkaTimeoutError(f"there is no topic {topic!r} in {self._log.url} after max_block_ms")
            self._log.bell.wait(seen, min(left, 1.0))
            self._check_open()

    def _note_batch(self, topic: str, sent: _future.Future) -> None:
        """Tell a partitioner that wants to know that a partition's batch is full."""
        on_new_batch = getattr(self._partitioner, "on_new_batch", None)
        if on_new_batch is None:
            return
        partition, batch = sent.batch.lane.tp.partition, sent.batch
        before = self._batches.get(topic)
        self._batches[topic] = partition, batch
        if before is not None and before[0] == partition and before[1] is not batch:
            on_new_batch(topic, self._cluster, partition)

    # -- flushing and closing

    def flush(self, timeout: float | None = None) -> None:
        """Write all that is buffered and wait until it is acknowledged as acks says; the disk is waited for.

        Raises the first failure that no get and no errback has seen.
        """
        self._check_open()
        self._producer.flush(timeout)

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        """Flush, then close; raises what flush raises, but is closed then.  timeout: seconds; the disk is awaited."""
        if timeout is not None and not 0 <= timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout must be seconds from 0, not {timeout!r}")
        if self._closed:
            return
        self._closed = True
        try:
            self._producer.close()
        finally:
            release(self._log)
            close_serializer(self.config["key_serializer"])
            close_serializer(self.config["value_serializer"])

    # -- looking

    def partitions_for(self, topic: str) -> set[int]:
        """The numbers of the topic's partitions; a missing topic is made, as in send."""
        self._check_open()
        return set(range(self._count(topic)))

    def bootstrap_connected(self) -> bool:
        """Whether the directory is open."""
        return not self._closed

    def metrics(self, raw: bool = False) -> dict[Any, Any] | None:
        """Numbers since the producer was made: {group: {name: value}}; None with metrics_enabled=False."""
        if not self.config["metrics_enabled"]:
            return None
        with self._meter_lock:
            meter = self._meter
            numbers = {
                "record-send-total": meter.records,
                "record-send-rate": meter.per_second(meter.records),
                "byte-total": meter.bytes,
                "byte-rate": meter.per_second(meter.bytes),
                "record-size-avg": meter.bytes / meter.records if meter.records else 0.0,
                "record-size-max": meter.bytes_max,
            }
        return shown({"producer-metrics": numbers}, raw=raw)

    # -- transactions

    def init_transactions(self) -> None:
        """Not possible without a transactional_id, which this version refuses: IllegalStateError."""
        raise _no_transactions("init_transactions")

    def begin_transaction(self) -> None:
        """As init_transactions."""
        raise _no_transactions("begin_transaction")

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """As init_transactions."""
        raise _no_transactions("send_offsets_to_transaction")

    def commit_transaction(self) -> None:
        """As init_transactions."""
        raise _no_transactions("commit_transaction")

    def abort_transaction(self) -> None:
        """As init_transactions."""
        raise _no_transactions("abort_transaction")

    def _check_open(self) -> None:
        if self._closed:
            raise IllegalStateError("the producer is closed")

    def __repr__(self) -> str:
        return f"<KafkaProducer client_id={self.config['client_id']} transactional_id=None>"


def _no_transactions(method: str) -> IllegalStateError:
    return IllegalStateError(f"{method}: the producer has no transactional_id")


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, list):
        raise TypeError(f"headers must be a list, not {type(headers).__name__}")
    for header in headers:
        if not (isinstance(header, tuple) and [type(part) for part in header] == [str, bytes]):
            raise TypeError(f"a header must be (str, bytes), not {header!r}")


def _size(what: str, data: Any) -> int:
    if data is None:
        return -1
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"the {what} must be bytes, bytearray, memoryview or None once serialized, not {data!r:.100}")
    return data.nbytes if isinstance(data, memoryview) else len(data)
