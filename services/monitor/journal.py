"""What the fleet did and suffered, and why: the last thousand happenings, here and in Redis under `baton:events`.

The leader notes, writes, and reads back what the leader before it wrote; others read along. Redis may be away: what was
noted meanwhile is written later. Followers wait for more; one that is slow misses what is older than the last thousand.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import MalformedMessage
from shared.messages import Happening, decode, encode

MOST: Final = 1000
WRITE_S: Final = 0.2
"""Between two writes: what happens together is written together."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A happening with its number, which counts from 1 in this monitor's life and grows by one."""

    number: int
    happening: Happening


class Journal:
    """The happenings in order, newest last."""

    def __init__(self, redis: "Redis", clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=MOST)
        self._unwritten: deque[Entry] = deque(maxlen=MOST)
        self._number = 0
        self._more = asyncio.Event()  # a new one for each entry

    def note(self, scenario: str, kind: str, text: str) -> None:
        """Add what happened now, to be written by `write`. Empty scenario: it concerns the whole fleet."""
        happening = Happening(int(self._clock() * 1000), scenario, kind, text)
        log.info(text, extra={"scenario": scenario, "kind": kind})
        self._unwritten.append(self._append(happening))

    def since(self, number: int = 0) -> list[Entry]:
        """List the entries after that number."""
        return [entry for entry in self._entries if entry.number > number]

    async def follow(self, number: int = 0) -> AsyncIterator[Entry]:
        """Yield the entries after that number, and then each new one. For ever; several may follow."""
        while True:
            more = self._more
            for entry in self.since(number):
                number = entry.number
                yield entry
            await more.wait()

    async def write(self) -> None:
        """Write what is not written yet. For as long as Redis does not answer it is kept."""
        batch = list(self._unwritten)
        if not batch:
            return
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                _ = pipe.lpush(keys.EVENTS, *(encode(entry.happening) for entry in batch))  # a pipeline only collects
                _ = pipe.ltrim(keys.EVENTS, 0, MOST - 1)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("the journal is not written", extra={"error": str(error)})
            return
        while self._unwritten and self._unwritten[0].number <= batch[-1].number:
            _ = self._unwritten.popleft()

    async def read(self) -> None:
        """Take in what Redis has and we have not; nothing where it does not answer."""
        try:
            found = await self._redis.lrange(keys.EVENTS, 0, MOST - 1)
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("the journal is not read", extra={"error": str(error)})
            return
        known = {entry.happening for entry in self._entries}
        for happening in _happenings(reversed(found)):
            if happening not in known:
                known.add(happening)
                self._append(happening)

    async def keep(self, *, leading: Callable[[], bool], read_s: float) -> None:
        """Write while we lead, read along while another does. For ever."""
        while True:
            if leading() or self._unwritten:
                await self.write()
                await asyncio.sleep(WRITE_S)
            else:
                await self.read()
                await asyncio.sleep(read_s)

    def _append(self, happening: Happening) -> Entry:
        self._number += 1
        entry = Entry(self._number, happening)
        self._entries.append(entry)
        self._more.set()
        self._more = asyncio.Event()
        return entry


def _happenings(found: Iterable[bytes | str]) -> Iterable[Happening]:
    for data in found:
        try:
            raw = data if isinstance(data, bytes) else data.encode()
            happening: Happening = decode(raw, Happening, "happening")
        except MalformedMessage as error:
            log.warning("a happening in Redis is not ours", extra={"error": str(error)})
            continue
        yield happening
