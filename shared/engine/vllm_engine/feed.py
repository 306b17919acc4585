"""Steps on their way to their one reader, and the end of them.

Bounded by what the held sequences may still generate: nobody holds vLLM up while the reader is elsewhere.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from shared.engine import Step
from shared.errors import EngineFailed


class Feed:
    """Of one engine."""

    def __init__(self) -> None:
        self.ended: EngineFailed | None = None  # why nothing is computed any more
        self._closed = False
        self._unread: deque[Step] = deque()
        self._news = asyncio.Event()

    def put(self, step: Step) -> None:
        """Append one, unless there is nothing in it."""
        if step.sampled or step.failed:
            self._unread.append(step)
            self._news.set()

    def end(self, why: EngineFailed, *, closed: bool = False) -> None:
        """There will be no more. The first reason counts; a reader of a closed engine is not told any."""
        self.ended = self.ended or why
        self._closed = self._closed or closed
        self._news.set()

    async def read(self) -> AsyncIterator[Step]:
        """Every step, in order. Raises what it ended with."""
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self.ended is not None:
                if self._closed:
                    return
                raise self.ended
            self._news.clear()
            await self._news.wait()
