"""Point to point: a queue in two partitions of a topic, for any number of processes."""

from .message import Message
from .queue import Queue

__all__ = ["Message", "Queue"]
