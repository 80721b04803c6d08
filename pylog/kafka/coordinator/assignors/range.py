"""The strategy "range"."""

from .abstract import AbstractPartitionAssignor


class RangePartitionAssignor(AbstractPartitionAssignor):
    """Each topic's partitions in runs of neighbours."""

    name = "range"
