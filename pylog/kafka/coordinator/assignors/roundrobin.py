"""The strategy "roundrobin"."""

from .abstract import AbstractPartitionAssignor


class RoundRobinPartitionAssignor(AbstractPartitionAssignor):
    """All topics' partitions in turn."""

    name = "roundrobin"
