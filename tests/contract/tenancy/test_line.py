"""The line to Redis that requests wait for: cut while idle, slow, taught scripts that it had forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from services.gateway.access import line as lines
from services.gateway.access.line import Line
from services.gateway.access.scripts import RENEW, sha
from shared.config import RedisSettings
from shared.errors import LinkLost
from shared.tasks import Tasks


@asynccontextmanager
async def opened(redis: RedisSettings, *scripts: str) -> AsyncIterator[Line]:
    line, tasks = Line(redis, scripts), Tasks("a test")
    _ = tasks.spawn(line.run(), name="line")
    try:
        yield line
    finally:
        assert await tasks.close() == []
        await line.close()


async def test_a_line_that_was_cut_while_nothing_was_asked_stands_again_before_the_next_request(
    redis_settings: RedisSettings, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "IDLE_S", 0.05)
    async with opened(redis_settings) as line:
        assert await line.ask("PING") == b"PONG"
        assert await redis_client.execute_command("CLIENT", "KILL", "SKIPME", "yes") >= 1
        async with asyncio.timeout(5):
            while line.down or not line.counts.outages:  # noqa: ASYNC110  the line announces nothing
                await asyncio.sleep(0.01)
        assert await line.ask("PING") == b"PONG"
        assert line.counts.outages == 1


async def test_a_redis_that_dawdles_over_every_answer_holds_nobody_up_for_all_of_them(
    redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "ANSWERS_S", 0.3)
    async with opened(redis_settings) as line:
        await line.ask("PING")
        read = line._connection.read_response

        async def dawdling() -> Any:
            await asyncio.sleep(0.1)
            return await read()

        monkeypatch.setattr(line._connection, "read_response", dawdling)
        began = time.monotonic()
        answers = await asyncio.gather(*(line.ask("PING") for _ in range(40)), return_exceptions=True)
        assert time.monotonic() - began < 2  # one after the other they take four seconds
        assert isinstance(answers[-1], LinkLost)
        assert answers[0] == b"PONG"


async def test_answers_belong_to_their_questions_though_some_scripts_were_forgotten(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    async with opened(redis_settings, RENEW) as line:
        await line.ask("PING")
        await redis_client.script_flush()
        asked = [
            line.ask("EVALSHA", sha(RENEW), 1, "a set", 1000, f"entry {number}")
            if number % 2
            else line.ask("INCR", "n")
            for number in range(40)
        ]
        assert await asyncio.gather(*asked) == [1 if number % 2 else number // 2 + 1 for number in range(40)]
        assert line.counts.outages == 0
