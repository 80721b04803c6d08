"""Kafka's log as a Python library: open a directory, produce and consume.

import pylog

with pylog.open("data") as log:
    with log.producer() as producer:
        producer.send("orders", b'{"id": 1}', key=b"alice")
    for record in log.read("orders"):
        print(record.offset, record.key, record.value)
"""

from ._admin import Admin
from ._columns import BytesColumn, Columns, Scan
from ._config import ConsumerConfig, ProducerConfig, QueueConfig, TopicConfig, WorkersConfig
from ._consumer import Consumer
from ._errors import (
    ClosedError,
    CommitFailedError,
    ConcurrentUseError,
    CorruptRecordError,
    FencedInstanceIdError,
    ForkError,
    GroupIdNotFoundError,
    IllegalStateError,
    InvalidConfigurationError,
    InvalidTopicError,
    KafkaTimeoutError,
    LeaseExpiredError,
    LogLockedError,
    MessageSizeTooLargeError,
    NonEmptyGroupError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    PylogError,
    RebalanceInProgressError,
    RetriableError,
    StorageError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
)
from ._future import Future
from ._groups.session import ConsumerRebalanceListener
from ._log import Log, open  # noqa: A004 - as sqlite3 and dbm call it
from ._producer import Producer
from ._queue import Message, Queue
from ._types import ConsumerGroupMetadata, OffsetAndMetadata, OffsetAndTimestamp, Record, RecordMetadata, TopicPartition
from ._workers import KeyedWorkers, Lane

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "BytesColumn",
    "ClosedError",
    "Columns",
    "CommitFailedError",
    "ConcurrentUseError",
    "Consumer",
    "ConsumerConfig",
    "ConsumerGroupMetadata",
    "ConsumerRebalanceListener",
    "CorruptRecordError",
    "FencedInstanceIdError",
    "ForkError",
    "Future",
    "GroupIdNotFoundError",
    "IllegalStateError",
    "InvalidConfigurationError",
    "InvalidTopicError",
    "KafkaTimeoutError",
    "KeyedWorkers",
    "Lane",
    "LeaseExpiredError",
    "Log",
    "LogLockedError",
    "Message",
    "MessageSizeTooLargeError",
    "NoOffsetForPartitionError",
    "NonEmptyGroupError",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OffsetOutOfRangeError",
    "Producer",
    "ProducerConfig",
    "ProducerFencedError",
    "PylogError",
    "Queue",
    "QueueConfig",
    "RebalanceInProgressError",
    "Record",
    "RecordMetadata",
    "RetriableError",
    "Scan",
    "StorageError",
    "TopicAlreadyExistsError",
    "TopicConfig",
    "TopicPartition",
    "UnknownTopicOrPartitionError",
    "UnsupportedCodecError",
    "WorkersConfig",
    "__version__",
    "open",
]
