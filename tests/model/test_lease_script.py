"""The Python of the lease scripts says what the scripts do: compared on random sequences with a real server."""

import random
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.leases import RELEASE, TAKE
from tests.model.lease_script import Store, release, take

OWNERS = ("a|0", "a|1", "b|0")
STEPS = 60
NAME = "d1"


class Both:
    """The real server and the transcription, side by side."""

    def __init__(self, client: Redis, run: str) -> None:
        self.client = client
        self.run = run
        self.store = Store()

    async def take(self, owner: str, known_boot: int) -> None:
        before = await self._time()
        names = (keys.lease(NAME), keys.FENCE, keys.BOOT)
        answer: Any = await self.client.eval(TAKE, 3, *names, owner, "60000", str(known_boot))
        real = (answer[0].decode(), int(answer[1]), int(answer[2]), bool(answer[3]))
        drawn = real[1] if before <= real[1] <= await self._time() else before
        expected, self.store = take(self.store, owner, known_boot, time=drawn, run=self.run)
        assert real == expected

    async def release(self, owner: str) -> None:
        real = await self.client.eval(RELEASE, 1, keys.lease(NAME), owner)
        expected, self.store = release(self.store, owner)
        assert real == expected

    async def expire(self) -> None:
        await self.client.delete(keys.lease(NAME))
        self.store = self.store._replace(lease=None)

    async def flush(self) -> None:
        await self.client.flushall()
        self.store = Store()

    async def fall_behind(self) -> None:
        """A failover: another process, with a counter of some time ago."""
        await self.client.delete(keys.lease(NAME))
        await self.client.set(keys.FENCE, 0)
        await self.client.hset(keys.BOOT, "run", "another")
        self.store = self.store._replace(lease=None, fence=0, run="another")

    async def _time(self) -> int:
        seconds, microseconds = await self.client.time()  # type: ignore[misc]
        return int(seconds) * 1_000_000 + int(microseconds)

    async def holds_the_same(self) -> None:
        fence = await self.client.get(keys.FENCE)
        assert int(fence or 0) == self.store.fence
        number, run = await self.client.hmget(keys.BOOT, ["number", "run"])
        assert (int(number or 0), (run or b"").decode()) == (self.store.boot, self.store.run)


@pytest.mark.parametrize("seed", range(8))
async def test_the_transcription_answers_as_the_server_does(redis_client: Redis, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret
    info = await redis_client.info("server")
    both = Both(redis_client, info["run_id"])
    for _ in range(STEPS):
        match chance.choice(("take", "take", "take", "take", "release", "expire", "flush", "fall behind")):
            case "take":
                known = chance.choice((0, both.store.boot, both.store.boot + 3, 1, 2**50 + chance.randrange(9)))
                await both.take(chance.choice(OWNERS), known)
            case "release":
                await both.release(chance.choice(OWNERS))
            case "expire":
                await both.expire()
            case "flush":
                await both.flush()
            case _:
                await both.fall_behind()
        await both.holds_the_same()
