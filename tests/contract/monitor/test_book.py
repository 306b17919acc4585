"""The monitor's book in Redis: maps by epoch and version, records of failures, leases."""

import pytest
from redis.asyncio import Redis

from services.monitor.book import Book
from services.monitor.leadership import NAME
from shared import keys
from shared.config import (
    Config,
    RedisSettings,
)
from shared.errors import Unavailable
from shared.lifecycle import open_redis
from shared.messages import (
    Group,
    InstanceRecord,
    Member,
    Pulse,
    Role,
    ScenarioMap,
    State,
    Status,
    encode,
)


def _map(epoch: tuple[int, int], version: int, *decodes: str) -> ScenarioMap:
    members = [Member(name, (1, 1)) for name in decodes]
    return ScenarioMap("chat", version, epoch, [Group("main", [], members)])


async def test_a_map_gives_way_to_a_later_one_only(redis_client: Redis) -> None:
    book = Book(redis_client)
    tries = [
        (_map((2, 5), 3), True),
        (_map((2, 5), 3), True),  # again: the first answer may have been lost
        (_map((2, 5), 2), False),
        (_map((2, 4), 99), False),
        (_map((1, 99), 99), False),
        (_map((2, 5), 4, "d1"), True),
        (_map((2, 6), 1), True),
        (_map((3, 1), 1, "d2"), True),
    ]
    for scenario_map, written in tries:
        assert await book.write_map(scenario_map) is written, scenario_map
    assert await book.maps() == (_map((3, 1), 1, "d2"),)


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"text", encode(Pulse("x", (1, 1))), b"\x80"])
async def test_what_is_no_map_gives_way_to_one(damage: bytes, redis_client: Redis) -> None:
    await redis_client.set(keys.scenario_map("chat"), damage)
    assert await Book(redis_client).maps() == ()
    assert await Book(redis_client).write_map(_map((1, 1), 1))


async def test_a_failure_is_noted_unless_the_instance_has_come_back(redis_client: Redis) -> None:
    book = Book(redis_client)
    record = InstanceRecord("d1", Role.DECODE, State.READY, (1, 5), "chat", "main", 77)
    await redis_client.set(keys.instance("d1"), encode(record))
    await book.write_failure("d1", (1, 4), "silent", None)
    assert await book.records() == {"d1": record}
    await book.write_failure("d1", (1, 5), "silent", None)
    failed = (await book.records())["d1"]
    assert (failed.state, failed.reason, failed.pid) == (State.FAILED, "silent", 77)


async def test_a_failure_of_one_without_a_record_is_noted_from_what_it_said(redis_client: Redis) -> None:
    status = Status("d1", (1, 5), Role.DECODE, State.READY, "chat", "main")
    await Book(redis_client).write_failure("d1", (1, 5), "silent", status)
    failed = (await Book(redis_client).records())["d1"]
    assert (failed.state, failed.role, failed.scenario) == (State.FAILED, Role.DECODE, "chat")


async def test_leases_are_read_with_the_leaders(redis_client: Redis) -> None:
    await redis_client.hset(keys.lease(NAME), mapping={"owner": "me", "boot": 1, "counter": 2})
    await redis_client.hset(keys.lease("d1"), mapping={"owner": "d", "boot": 7, "counter": 8})
    leases = await Book(redis_client).leases(NAME, ["d1", "d2"])
    assert (leases.leader, dict(leases.epochs)) == ("me", {"d1": (7, 8), "d2": None})


async def test_without_redis_every_page_of_the_book_is_unavailable() -> None:
    async with open_redis(Config(redis=RedisSettings(url="redis://127.0.0.1:1/0"))) as nowhere:
        book = Book(nowhere)
        for call in (book.maps(), book.records(), book.leases(NAME, []), book.write_map(_map((1, 1), 1))):
            with pytest.raises(Unavailable, match="Redis does not answer"):
                await call
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await book.write_failure("d1", (1, 1), "silent", None)
