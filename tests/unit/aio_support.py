"""What the tests of pylog.aio share."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS_MAX = 30


def run(main: Coroutine[Any, Any, T]) -> T:
    """In a new event loop, for not longer than SECONDS_MAX."""

    async def limited() -> T:
        async with asyncio.timeout(SECONDS_MAX):
            return await main

    return asyncio.run(limited())
