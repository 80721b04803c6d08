"""The strategy "sticky"."""

from ..abstract import AbstractPartitionAssignor


class StickyPartitionAssignor(AbstractPartitionAssignor):
    """Evenly, and as before where that can be."""

    name = "sticky"
