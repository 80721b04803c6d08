"""What a queue notes about a message, in the message: a last header of its own, which no user sees.

    pylog.queue   {"due": ms since 1970}                     put with a delay: not to be delivered before
                  {"error": why, "deliveries": how often}    a dead letter

It is one write with the message, so no crash parts the two.  A user's own last header of that name is kept apart from
it by an empty one of ours behind it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from .._types import Headers
from .settings import checked_delay

NAME = "pylog.queue"


def seal(headers: Headers | None, notes: Mapping[str, Any] | None = None) -> Headers | None:
    """The headers to send."""
    if not notes and not (headers and headers[-1][0] == NAME):
        return headers
    return [*(headers or ()), (NAME, json.dumps(notes or {}, separators=(",", ":")).encode())]


def unseal(headers: Headers) -> tuple[Headers, dict[str, Any]]:
    """The user's headers, and what was noted."""
    if headers and headers[-1][0] == NAME:
        try:
            notes = json.loads(headers[-1][1] or b"")
        except ValueError:
            return headers, {}
        if isinstance(notes, dict):
            return headers[:-1], notes
    return headers, {}


def due_note(delay: float) -> dict[str, int] | None:
    """What to note of a message that is to wait for so many seconds."""
    return {"due": -(-(time.time_ns() + int(delay * 1e9)) // 1_000_000)} if checked_delay(delay) else None
