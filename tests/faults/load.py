"""Streams that run while something is hurt, and their judgment: each whole, none with another text (I1, I2, I3)."""

import asyncio

from tests.faults.client import Answer
from tests.faults.history import History, check

FRESH = 20


class Load:
    """So many streams at once, each with a prompt and a seed of its own."""

    def __init__(self, url: str, streams: int, tokens: int, *, seed: int, timeout_s: float = 60) -> None:
        self.history = History()
        self._streams = streams
        self._works = [
            asyncio.ensure_future(
                self.history.ask(
                    url, f"{seed}-{k} " + "x" * (k * 7 % 50), tokens, seed=seed * 1000 + k, timeout_s=timeout_s
                )
            )
            for k in range(streams)
        ]

    async def under_way(self, tokens: int = 3) -> None:
        """Wait until every stream has brought so many tokens."""
        await self.history.flowing(self._streams, tokens)

    async def whole(self) -> list[Answer]:
        """Wait for the end of every stream; each must be what it would have been without any fault."""
        answers = await asyncio.gather(*self._works)
        assert check(self.history) == []
        assert not self.history.failed, self.history.failed
        return answers

    def stop(self) -> None:
        """Let go of what still runs."""
        for work in self._works:
            work.cancel()


async def fresh(url: str, *, seed: int, count: int = FRESH) -> None:
    """New requests succeed (I8)."""
    await Load(url, count, 12, seed=seed).whole()
