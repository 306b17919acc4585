"""Requests that arrive by themselves or one after another, and what became of each. Judges nothing.

An open loop sends at given times, whatever came of those before; a closed loop keeps so many requests open. One request
is one streamed completion of a prompt of so many bytes, which are the sim engine's tokens.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import aiohttp

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz     "
PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: when it is sent (seconds from the start), and its lengths in tokens."""

    at: float
    prompt: int
    output: int


@dataclass(slots=True)
class Seen:
    """What became of it. Times are monotonic seconds; `first` is inf where no token came."""

    ask: Ask
    sent: float
    first: float = float("inf")
    ended: float = float("inf")
    whole: bool = False
    chunks: list[float] = field(default_factory=list)  # arrivals of data, where they are asked for
    error: str = ""

    @property
    def ttft_s(self) -> float:
        """From sending to the first token."""
        return self.first - self.sent


class Client:
    """Sends requests to one gateway. `timed`: notes when each piece of a stream came."""

    def __init__(self, url: str, seed: int, *, timed: bool = False) -> None:
        self._url = f"{url}/v1/completions"
        self._letters = random.Random(seed)  # noqa: S311  no secret
        self._timed = timed
        self.seen: list[Seen] = []

    async def open_loop(self, asks: list[Ask]) -> list[Seen]:
        """Send each at its time; returns when all have ended."""
        start = time.monotonic()
        async with self._session() as session, asyncio.TaskGroup() as group:
            for ask in asks:
                await asyncio.sleep(max(0.0, start + ask.at - time.monotonic()))
                group.create_task(self._send(session, ask))
        return self.seen

    async def closed_loop(self, draw: Callable[[], tuple[int, int]], outstanding: int, stop: asyncio.Event) -> None:
        """Keep so many requests open, each of lengths that `draw` gives, until `stop`; those open then are dropped."""
        start = time.monotonic()

        async def one(session: aiohttp.ClientSession) -> None:
            while not stop.is_set():
                prompt, output = draw()
                seen = await self._send(session, Ask(time.monotonic() - start, prompt, output))
                if not seen.whole:
                    await asyncio.sleep(0.1)  # a refusal is no reason to ask a thousand times a second

        async with self._session() as session:
            work = [asyncio.ensure_future(one(session)) for _ in range(outstanding)]
            await stop.wait()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    async def _send(self, session: aiohttp.ClientSession, ask: Ask) -> Seen:
        body = {
            "model": "chat",
            "prompt": "".join(self._letters.choices(LETTERS, k=ask.prompt)),
            "max_tokens": ask.output,
            "seed": 1,
            "stream": True,
        }
        seen = Seen(ask, time.monotonic())
        self.seen.append(seen)
        try:
            async with session.post(self._url, json=body) as answer:
                tail = b""
                async for chunk in answer.content.iter_any():
                    now = time.monotonic()
                    if answer.status == 200 and seen.first == float("inf") and b"data: {" in chunk:
                        seen.first = now
                    if self._timed:
                        seen.chunks.append(now)
                    tail = (tail + chunk)[-400:]
                seen.whole = answer.status == 200 and b"[DONE]" in tail and b'"error"' not in tail
                if not seen.whole:
                    seen.error = tail.decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            seen.error = repr(error)
        seen.ended = time.monotonic()
        return seen


def poisson(rate: float, seconds: float, draw: Callable[[random.Random], tuple[int, int]], seed: int) -> list[Ask]:
    """Requests of a Poisson process of `rate` a second, with lengths by `draw`."""
    source = random.Random(seed)  # noqa: S311
    return list(_arrivals(source, rate, seconds, draw))


def _arrivals(
    source: random.Random, rate: float, seconds: float, draw: Callable[[random.Random], tuple[int, int]]
) -> Iterator[Ask]:
    at = 0.0
    while (at := at + source.expovariate(rate)) < seconds:
        yield Ask(at, *draw(source))


def success(seen: list[Seen], slo_s: float) -> float:
    """Share of the requests that were whole and had their first token in time."""
    return sum(one.whole and one.ttft_s <= slo_s for one in seen) / max(1, len(seen))


def worst_window(seen: list[Seen], slo_s: float, window_s: float, least: int = 20) -> float:
    """The worst success of any window of arrivals that has at least so many requests."""
    ranked = sorted(seen, key=lambda one: one.ask.at)
    windows = (list(group) for _, group in itertools.groupby(ranked, key=lambda one: int(one.ask.at / window_s)))
    return min((success(group, slo_s) for group in windows if len(group) >= least), default=1.0)
