"""Key-ordered workers: one reader, many lanes, each record of a key after the one before."""

from .lane import Lane
from .workers import KeyedWorkers

__all__ = ["KeyedWorkers", "Lane"]
