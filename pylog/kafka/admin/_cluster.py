"""The directory as a cluster of one."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from typing import Any

from ._base import BROKER_ID, AdminBase


class ClusterAdmin(AdminBase):
    """The part of KafkaAdminClient that is about the whole."""

    def describe_cluster(self) -> dict[str, Any]:
        """One broker, number 0, whose host is the directory's path."""
        broker = {"broker_id": BROKER_ID, "host": self._path, "port": 0, "rack": None, "is_fenced": False}
        return {
            "cluster_id": self._path,
            "controller_id": BROKER_ID,
            "brokers": [broker],
            "authorized_operations": None,
        }

    def describe_log_dirs(
        self,
        topic_partitions: Mapping[str, Collection[int]] | Collection[str] | None = None,
        brokers: Collection[int] | None = None,
    ) -> list[dict[str, Any]]:
        """How many bytes the partitions take, and how many the disk has."""
        numbers = topic_partitions if isinstance(topic_partitions, Mapping) else {}
        names = None if topic_partitions is None else list(topic_partitions)
        topics = [
            {
                "name": topic["name"],
                "partitions": [
                    {
                        "partition_index": partition["partition"],
                        "partition_size": partition["size_bytes"],
                        "offset_lag": 0,
                        "is_future_key": False,
                    }
                    for partition in topic["partitions"]
                    if topic["name"] not in numbers or partition["partition"] in numbers[topic["name"]]
                ],
            }
            for topic in self._log.admin.describe_topics(names)
        ]
        disk = shutil.disk_usage(self._path)
        log_dir = {
            "error_code": 0,
            "log_dir": self._path,
            "topics": topics,
            "total_bytes": disk.total,
            "usable_bytes": disk.free,
            "is_cordoned": False,
        }
        return [{"broker": BROKER_ID, "log_dirs": [log_dir]}]

    def describe_features(self, send_request_to_controller: bool = False) -> dict[str, Any]:
        """None: a directory has no features to switch on."""
        return {}

    @property
    def _path(self) -> str:
        return str(self._log.directory.path)
