"""How workers are asked to end."""

from __future__ import annotations


class Stop:
    """What was asked for, and why.  Written by any thread and by signal handlers, so by assignments alone."""

    def __init__(self) -> None:
        self.asked = False
        self.drain = True  # False: nothing is begun any more
        self.error: BaseException | None = None  # the first
