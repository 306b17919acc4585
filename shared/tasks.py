"""Owned tasks: whoever spawns a task here awaits it at close.

Owns the tasks and the record of their failures. Must not decide what a failure means; that is `on_failure`'s business.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from shared.errors import Draining, Overloaded

T = TypeVar("T")
OnFailure = Callable[[str, BaseException], None]
"""Called with the task's name and what it raised, on the event loop, once per failed task."""

AGAIN_S = 0.2
"""Between two cancellations of the same task."""

log = logging.getLogger(__name__)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; after so long, end it and raise TimeoutError.

    For libraries that lose a cancellation (see `Tasks.close`): `asyncio.timeout` cancels once, and then waits for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=AGAIN_S)
        if not task.cancelled():
            task.exception()  # raised above, or too late to matter


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; a cancellation is raised only after its end.

    For short work that would leave something open if it were broken off.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody waits for it any more
        raise


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, no longer than so many seconds; whether it came."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Tasks:
    """A bounded set of running tasks. An exception that leaves a task is logged, counted and told to `on_failure`."""

    def __init__(self, owner: str, *, limit: int = 100_000, on_failure: OnFailure | None = None) -> None:
        self.owner = owner
        self.limit = limit
        self.failures = 0
        self._on_failure = on_failure
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def names(self) -> list[str]:
        """Of the tasks that run now."""
        return sorted(task.get_name() for task in self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task. Raises Draining after close, Overloaded at the limit; the coroutine is closed then."""
        if self._closed:
            coroutine.close()
            raise Draining(f"{self.owner} is closing and starts no task {name!r}")
        if len(self._running) >= self.limit:
            coroutine.close()
            raise Overloaded(f"{self.owner} already runs {self.limit} tasks, its limit")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self, timeout_s: float = 5.0) -> list[str]:
        """Cancel every task and wait for its end; the names of those that did not end in time. Idempotent.

        A cancellation is repeated, for it can get lost: `asyncio.wait_for` before Python 3.12 swallows one that comes
        when what it waits for is done, and the Redis client calls it at each command.
        """
        self._closed = True
        give_up = time.monotonic() + timeout_s
        own = {asyncio.current_task()}  # a task may close the set it belongs to
        waiting = self._running - own
        while waiting and time.monotonic() < give_up:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=min(AGAIN_S, timeout_s))
        stuck = sorted(task.get_name() for task in waiting)
        if stuck:
            log.error("tasks ignore their cancellation", extra={"owner": self.owner, "tasks": stuck})
        return stuck

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        self.failures += 1
        log.error("task failed", extra={"owner": self.owner, "task": task.get_name()}, exc_info=error)
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)
