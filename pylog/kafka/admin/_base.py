"""What the parts of KafkaAdminClient share."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

from ..._log import Log
from ..._topic import Topic
from ..errors import BrokerResponseError, IllegalStateError, KafkaError, StorageError, UnknownError

# A directory has one broker, so to speak.
BROKER_ID = 0


class AdminBase:
    """A client's directory and options."""

    config: dict[str, Any]
    _opened: Log
    _closed: bool

    @property
    def _log(self) -> Log:
        if self._closed:
            raise IllegalStateError("the admin client is closed")
        return self._opened


def error_code(error: KafkaError | None) -> int:
    """Kafka's number for it."""
    if error is None:
        return 0
    if isinstance(error, StorageError):
        return 56
    return error.errno if isinstance(error, BrokerResponseError) else UnknownError.errno


def attempt(act: Callable[[], object]) -> KafkaError | None:
    """Do it; what went wrong, where that is of pylog's kind."""
    try:
        act()
    except KafkaError as error:
        return error
    return None


def topic_uuid(topic: Topic) -> uuid.UUID | None:
    """The topic's id; None where only a broker knows it."""
    return None if topic.id is None else uuid.UUID(bytes=base64.urlsafe_b64decode(topic.id + "=="))


def raise_first(errors: list[KafkaError | None]) -> None:
    """Raise the first of them."""
    for error in errors:
        if error is not None:
            raise error
