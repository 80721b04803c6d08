"""How the asyncio handles call the plain ones below: at once, or in a few threads where the disk may be waited for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from .._errors import ForkError

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")

# So many of a Log's calls wait for the disk at once; more would only queue up there.
THREADS_MAX = 4


class Threads:
    """The threads of one Log.  They are started when they are needed and end with it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="pylog aio")

    def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread."""
        if os.getpid() != self._pid:  # the threads are the parent's
            raise ForkError("this handle was opened by the parent process; call pylog.aio.open again in the child")
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread and wait for it.  Who is cancelled meanwhile goes once it is over, not before."""
        job = self.start(call)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            while not job.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([job])
            if not job.cancelled():
                job.exception()  # nobody is left to hear of it
            raise

    def stop(self) -> None:
        """Let the threads end.  What is called all the same, only to say that it is closed, has the loop's own."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


def settle(waiter: asyncio.Future[None], error: BaseException | None) -> None:
    """Release who awaits it, unless they were cancelled."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


class Handle(Generic[S]):
    """Over a plain handle; `async with` closes it at its end."""

    _sync: S
    _threads: Threads

    async def close(self) -> None:
        """Give back what the handle holds."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio {repr(self._sync)[1:]}"


def plain(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Handle[S], P], T]:
    """The plain handle's method as it is: it only looks at memory."""

    @functools.wraps(method)
    def call(self: Handle[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._sync, *args, **kwargs)

    return call


def in_thread(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[Handle[S], P], Coroutine[Any, Any, T]]:
    """The plain handle's method as a coroutine; a thread waits for the disk."""

    @functools.wraps(method)
    async def call(self: Handle[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.run(lambda: method(self._sync, *args, **kwargs))

    return call
