"""The limits of tenants while Redis does not answer, or its answer is lost: kept alone, given back once."""

import asyncio

import pytest
from redis.asyncio import Redis

from services.gateway.access import line as lines
from shared.config import RedisSettings
from shared.errors import LinkLost
from shared.policy.limits import Limits, Need
from tests.contract.tenancy.ledgers import ACME, opened, streams, taken, tokens_used
from tests.servers import RedisServer


async def test_without_redis_each_gateway_keeps_the_limits_alone_and_from_what_it_knew(
    own_redis_server: RedisServer,
) -> None:
    limits = Limits(requests=10, streams=8)
    async with opened(own_redis_server.settings()) as ledger:
        before = await taken(ledger, limits, Need(0), 4)
        own_redis_server.kill()
        alone = await taken(ledger, limits, Need(0), 10)
        assert len(alone) == 4  # eight streams at a time, four of them opened before
        assert ledger.counts.local >= 10
        for grant in [*before, *alone]:
            ledger.settle(grant, 0)
        assert len(await taken(ledger, limits, Need(0), 10)) == 2  # ten requests a minute
        own_redis_server.start()
        async with asyncio.timeout(10):
            while ledger._line.down:  # noqa: ASYNC110  the line announces nothing
                await asyncio.sleep(0.05)
        local = ledger.counts.local
        await taken(ledger, limits, Need(0), 1)
        assert ledger.counts.local == local


async def test_streams_let_in_without_redis_are_counted_by_it_once_it_is_back(own_redis_server: RedisServer) -> None:
    limits = Limits(streams=3)
    async with opened(own_redis_server.settings()) as ledger:
        await taken(ledger, limits, Need(0), 1)
        own_redis_server.kill()
        alone = await taken(ledger, limits, Need(0), 5)
        assert len(alone) == 2
        own_redis_server.start()
        async with asyncio.timeout(10):
            while ledger._line.down:  # noqa: ASYNC110  the line announces nothing
                await asyncio.sleep(0.05)
        assert await taken(ledger, limits, Need(0), 1) == []
        ledger.settle(alone[0], 0)
        assert len(await taken(ledger, limits, Need(0), 2)) == 1


async def test_what_ends_without_redis_gives_back_to_the_gateway_that_counts_alone(
    own_redis_server: RedisServer,
) -> None:
    limits = Limits(tokens=6000)
    async with opened(own_redis_server.settings()) as ledger:
        early, late = await taken(ledger, limits, Need(3000), 2)
        own_redis_server.kill()
        ledger.settle(early, 100)  # nobody knows yet that Redis is gone
        assert len(await taken(ledger, limits, Need(2500), 2)) == 1
        assert ledger._line.down
        ledger.settle(late, 100)
        assert len(await taken(ledger, limits, Need(2800), 2)) == 1


async def test_a_share_whose_reply_was_lost_is_given_back_once_though_the_request_goes_on(
    redis_settings: RedisSettings, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(tokens=10_000)
    async with opened(redis_settings) as ledger:
        await taken(ledger, limits, Need(8000), 1)
        send = ledger._line.send

        def losing(*command: str | int | bytes) -> "asyncio.Future[object]":
            _ = send(*command)
            lost: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            lost.set_exception(LinkLost("the reply was lost"))
            return lost

        with monkeypatch.context() as patch:
            patch.setattr(ledger._line, "send", losing)
            grant = await ledger.admit(ACME, "chat", limits, Need(1500))  # let in by the gateway alone
            await asyncio.sleep(0)
            ((until, command),) = ledger._owed
            ledger.catch_up()  # gives back what was taken, and renews the request; these replies are lost too
        ledger._give_back(command, until)
        ledger.catch_up()
        await ledger._line.flushed()
        assert await streams(redis_client) == 2
        assert 7500 < await tokens_used(redis_client) <= 8000
        ledger.settle(grant, 500)
        await ledger._line.flushed()
        assert 8000 < await tokens_used(redis_client) <= 8500


async def test_nothing_is_owed_where_nothing_was_sent(
    redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 0)
    async with opened(redis_settings) as ledger:
        assert len(await taken(ledger, Limits(requests=10), Need(1), 12)) == 10
        assert (ledger.counts.local, len(ledger._owed)) == (12, 0)


async def test_a_request_let_in_alone_stays_so_until_its_renewal_is_sent(
    own_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(own_redis_server.settings()) as ledger:
        own_redis_server.kill()
        (grant,) = await taken(ledger, Limits(tokens=1000), Need(900), 1)
        monkeypatch.setattr(lines, "LONGEST", 0)
        ledger._line.down = False
        ledger._renew()
        assert (grant.local, grant.tokens) == (True, 900)
