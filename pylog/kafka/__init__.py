"""kafka-python's clients over a directory: change the import, and name the directory as bootstrap_servers.

from pylog.kafka import KafkaConsumer, KafkaProducer

producer = KafkaProducer(bootstrap_servers="data")
producer.send("orders", b"a record").get(timeout=10)
"""

from ._enums import IsolationLevel, OffsetSpec
from .admin import KafkaAdminClient
from .consumer import KafkaConsumer
from .consumer.subscription_state import AsyncConsumerRebalanceListener, ConsumerRebalanceListener
from .producer import KafkaProducer
from .serializer import DefaultSerializer, Deserializer, JsonSerializer, Serializer
from .structs import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
    TopicPartitionReplica,
)
from .version import __version__

__all__ = [
    "AsyncConsumerRebalanceListener",
    "ConsumerGroupMetadata",
    "ConsumerRebalanceListener",
    "DefaultSerializer",
    "Deserializer",
    "IsolationLevel",
    "JsonSerializer",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OffsetSpec",
    "Serializer",
    "TopicPartition",
    "TopicPartitionReplica",
    "__version__",
]
