"""The journal: what is noted is in Redis in order, bounded, read back by the next leader, followed while it grows."""

import asyncio

from redis.asyncio import Redis

from services.monitor.journal import MOST, Journal
from shared import keys
from shared.config import Config, RedisSettings
from shared.lifecycle import open_redis
from shared.messages import Happening, Pulse, decode, encode


def _journal(redis: Redis) -> Journal:
    moments = iter(range(1_000_000))
    return Journal(redis, clock=lambda: next(moments) / 1000)


def _texts(journal: Journal) -> list[str]:
    return [entry.happening.text for entry in journal.since()]


async def test_the_next_leader_reads_what_the_last_one_wrote(redis_client: Redis) -> None:
    first, second = _journal(redis_client), _journal(redis_client)
    first.note("chat", "joined", "one")
    first.note("", "provided", "two")
    await first.write()
    first.note("chat", "lost", "three")
    await first.write()
    await first.write()
    assert [decode(data, Happening).text for data in await redis_client.lrange(keys.EVENTS, 0, -1)] == [
        "three", "two", "one",
    ]  # fmt: skip
    await second.read()
    await second.read()
    assert [entry.happening for entry in second.since()] == [
        Happening(0, "chat", "joined", "one"),
        Happening(1, "", "provided", "two"),
        Happening(2, "chat", "lost", "three"),
    ]
    assert [entry.number for entry in second.since(1)] == [2, 3]


async def test_what_is_no_happening_is_passed_over(redis_client: Redis) -> None:
    writer, reader = _journal(redis_client), _journal(redis_client)
    writer.note("chat", "joined", "one")
    await writer.write()
    await redis_client.lpush(keys.EVENTS, b"\xc1", encode(Pulse("x", (1, 1))), b"")
    await reader.read()
    assert _texts(reader) == ["one"]


async def test_only_the_last_thousand_are_kept(redis_client: Redis) -> None:
    journal = _journal(redis_client)
    for number in range(MOST + 5):
        journal.note("chat", "joined", str(number))
        if number == MOST - 2:
            await journal.write()
    await journal.write()
    assert await redis_client.llen(keys.EVENTS) == MOST
    assert (_texts(journal)[0], _texts(journal)[-1]) == ("5", str(MOST + 4))


async def test_what_was_noted_while_redis_was_away_is_written_later(redis_client: Redis) -> None:
    async with open_redis(Config(redis=RedisSettings(url="redis://127.0.0.1:1/0"))) as nowhere:
        journal = _journal(nowhere)
        journal.note("chat", "joined", "one")
        await journal.write()
        await journal.read()
    journal._redis = redis_client
    journal.note("chat", "joined", "two")
    await journal.write()
    assert await redis_client.llen(keys.EVENTS) == 2


async def test_followers_get_what_was_and_then_what_comes(redis_client: Redis) -> None:
    journal = _journal(redis_client)
    journal.note("chat", "joined", "one")
    heard: list[str] = []
    three = asyncio.Event()

    async def follow() -> None:
        async for entry in journal.follow():
            heard.append(entry.happening.text)
            if len(heard) == 3:
                three.set()

    task = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    journal.note("chat", "joined", "two")
    await asyncio.sleep(0)
    journal.note("chat", "joined", "three")
    async with asyncio.timeout(5):
        await three.wait()
    assert heard == ["one", "two", "three"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
