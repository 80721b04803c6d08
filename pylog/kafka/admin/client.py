"""KafkaAdminClient over a directory."""

from __future__ import annotations

from typing import Any

from ..._closing import Closing
from .. import _options
from .._logs import acquire, release
from ..errors import KafkaConfigurationError
from ._cluster import ClusterAdmin
from ._configs import ConfigAdmin
from ._groups import GroupAdmin
from ._partitions import PartitionAdmin
from ._refused import Refused
from ._topics import TopicAdmin


class KafkaAdminClient(ClusterAdmin, ConfigAdmin, GroupAdmin, PartitionAdmin, TopicAdmin, Refused, Closing):
    """Looks after the directory that bootstrap_servers names.  Thread-safe.

    Options and their defaults are kafka-python's; but for the directory they mean nothing here.  Results have
    kafka-python's shapes.  What needs brokers, users or transactions raises UnsupportedVersionError.  Raises
    KafkaConfigurationError for an unknown option, and what pylog.open raises.
    """

    DEFAULT_CONFIG = _options.ADMIN

    def __init__(self, **configs: Any) -> None:
        self.config = _options.complete("KafkaAdminClient", self.DEFAULT_CONFIG, configs, KafkaConfigurationError)
        self._opened = acquire(self.config["bootstrap_servers"])
        self._closed = False

    def close(self) -> None:
        """Let go of the directory."""
        if not self._closed:
            self._closed = True
            release(self._opened)

    def __repr__(self) -> str:
        return f"<KafkaAdminClient of {self._opened.url}{', closed' if self._closed else ''}>"
