"""The strategy "cooperative-sticky"."""

from .abstract import AbstractPartitionAssignor


class CooperativeStickyAssignor(AbstractPartitionAssignor):
    """Evenly, and as before where that can be; who keeps a partition reads on."""

    name = "cooperative-sticky"
