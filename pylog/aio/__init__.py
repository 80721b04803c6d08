"""pylog in asyncio: the same names, and coroutines where a call may wait.

    async with aio.open("data") as log, log.producer() as producer:
        place = await producer.send("orders", b"one")

open, log.producer, log.consumer, log.queue and log.workers are plain calls; so is what looks at memory only (seek,
pause, position ...).  Handles belong to one event loop.  docs/asyncio.md
"""

from ._admin import Admin
from ._consumer import Consumer
from ._log import Log, open  # noqa: A004 - as sqlite3 and dbm call it
from ._producer import Producer
from ._queue import Message, Queue
from ._workers import KeyedWorkers, Lane

__all__ = ["Admin", "Consumer", "KeyedWorkers", "Lane", "Log", "Message", "Producer", "Queue", "open"]
