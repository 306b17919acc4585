"""The limits of tenants over a real Redis: exact for all gateways together, given back once, and kept without Redis."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as PlainRedis
from redis.asyncio import Redis

from services.gateway.access import ledger as ledgers
from services.gateway.access.caller import Caller, Grant
from services.gateway.access.ledger import SCRIPTS, Ledger
from services.gateway.access.line import Line
from services.gateway.access.scripts import ADMIT, SETTLE
from shared import keys
from shared.config import RedisSettings
from shared.errors import LimitReached, NeverFits
from shared.policy.limits import MINUTE, Account, Limits, Need
from shared.tasks import Tasks
from tests.servers import RedisServer

ACME = Caller("acme", "k1")


@asynccontextmanager
async def opened(redis: RedisSettings, gateway: str = "gateway-1") -> AsyncIterator[Ledger]:
    line = Line(redis, SCRIPTS)
    ledger = Ledger(gateway, line)
    line.on_up = ledger.catch_up
    tasks = Tasks("a test")
    _ = tasks.spawn(line.run(), name="line")
    try:
        yield ledger
    finally:
        assert await tasks.close() == []
        await line.close()


async def taken(ledger: Ledger, limits: Limits, need: Need, times: int) -> list[Grant]:
    """Ask so many times at once; the grants of those that were let in."""
    asked = [ledger.admit(ACME, "chat", limits, need) for _ in range(times)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, Grant | LimitReached) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Grant)]


async def streams(client: Redis) -> int:
    return int(await client.zcard(keys.tenant_streams("acme")))


async def tokens_used(client: Redis) -> int:
    return int(await client.hget(keys.tenant_rates("acme"), "tokens") or 0) // MINUTE


async def test_gateways_that_are_asked_at_once_let_in_exactly_what_is_allowed(redis_settings: RedisSettings) -> None:
    limits = Limits(requests=50)
    began = asyncio.get_running_loop().time()
    async with opened(redis_settings, "a") as a, opened(redis_settings, "b") as b, opened(redis_settings, "c") as c:
        grants = await asyncio.gather(*(taken(one, limits, Need(1), 60) for one in (a, b, c)))
    drained = (asyncio.get_running_loop().time() - began) * 50 / 60
    assert 50 <= sum(map(len, grants)) <= 50 + drained


async def test_tokens_are_never_over_and_never_under_by_more_than_one_request(redis_settings: RedisSettings) -> None:
    limits, need = Limits(tokens=10_000), Need(70)
    began = asyncio.get_running_loop().time()
    async with opened(redis_settings, "a") as a, opened(redis_settings, "b") as b:
        grants = await asyncio.gather(taken(a, limits, need, 120), taken(b, limits, need, 120))
    drained = (asyncio.get_running_loop().time() - began) * 10_000 / 60
    used = 70 * sum(map(len, grants))
    assert 10_000 - 70 < used <= 10_000 + drained


async def test_streams_are_counted_by_choice_and_come_back_one_by_one(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    limits = Limits(streams=4)
    async with opened(redis_settings, "a") as a, opened(redis_settings, "b") as b:
        grants = await taken(a, limits, Need(0, 2), 3)
        assert len(grants) == 2
        assert await taken(b, limits, Need(0), 1) == []
        a.settle(grants[0], 0)
        assert len(await taken(a, limits, Need(0), 3)) == 2
        assert await streams(redis_client) == 4


async def test_what_was_not_used_is_given_back_once_however_often_it_is_settled(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    limits = Limits(tokens=6000)
    async with opened(redis_settings) as ledger:
        first, second = await taken(ledger, limits, Need(3000), 2)
        for _ in range(3):
            ledger.settle(first, 1000)
            first.settled = False  # as if another path of the gateway did not know
        await taken(ledger, limits, Need(0), 1)  # goes after them on the same line
        assert 3500 < await tokens_used(redis_client) <= 4000
        ledger.settle(second, 3500)  # a request may turn out larger than was set aside
        await taken(ledger, limits, Need(0), 1)
        assert 4000 < await tokens_used(redis_client) <= 4500


async def test_a_refusal_says_which_limit_and_takes_nothing(redis_settings: RedisSettings, redis_client: Redis) -> None:
    limits = Limits(requests=2, tokens=100, streams=2)
    async with opened(redis_settings) as ledger:
        with pytest.raises(NeverFits, match=r"101 tokens .* allowed 100 per minute"):
            await ledger.admit(ACME, "chat", limits, Need(101))
        with pytest.raises(NeverFits, match="3 choices"):
            await ledger.admit(ACME, "chat", limits, Need(1, 3))
        grant = await ledger.admit(ACME, "chat", limits, Need(60))
        assert grant.headers == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-reset-requests": "30s",
            "x-ratelimit-limit-tokens": "100",
            "x-ratelimit-remaining-tokens": "40",
            "x-ratelimit-reset-tokens": "36s",
        }
        with pytest.raises(LimitReached, match="tokens per minute: 100 are allowed") as short:
            await ledger.admit(ACME, "chat", limits, Need(90))
        assert 25 < short.value.retry_after_s <= 30
        await ledger.admit(ACME, "chat", limits, Need(1))
        with pytest.raises(LimitReached, match="requests per minute: 2 are allowed"):
            await ledger.admit(ACME, "chat", limits, Need(1))
        assert await streams(redis_client) == 2
        more = Limits(requests=100, tokens=100, streams=2)
        with pytest.raises(LimitReached, match="concurrent streams: 2 are allowed, 2 are open"):
            await ledger.admit(ACME, "chat", more, Need(1))


async def test_tenants_do_not_touch_each_other(redis_settings: RedisSettings) -> None:
    limits = Limits(requests=1)
    async with opened(redis_settings) as ledger:
        await ledger.admit(ACME, "chat", limits, Need(1))
        await ledger.admit(Caller("beta"), "chat", limits, Need(1))
        with pytest.raises(LimitReached, match="acme"):
            await ledger.admit(ACME, "chat", limits, Need(1))


async def test_a_client_that_vanishes_while_it_is_admitted_leaves_nothing_behind(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    limits = Limits(tokens=10_000, streams=100)
    async with opened(redis_settings) as ledger:
        tasks = [asyncio.ensure_future(ledger.admit(ACME, "chat", limits, Need(100))) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await taken(ledger, limits, Need(0, 0), 1)
        assert await streams(redis_client) == 0
        assert await tokens_used(redis_client) == 0


async def test_the_streams_of_a_gateway_that_died_lapse_and_those_of_a_living_one_do_not(
    redis_settings: RedisSettings, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_LAPSE_US", "400000")
    limits = Limits(streams=2)
    async with opened(redis_settings, "living") as living:
        async with opened(redis_settings, "dead") as dead:
            await dead.admit(ACME, "chat", limits, Need(0))
        kept = await living.admit(ACME, "chat", limits, Need(0))
        async with asyncio.timeout(10):
            while not await taken(living, limits, Need(0), 1):
                living.catch_up()  # what its task does every few seconds
                await asyncio.sleep(0.1)
        living.catch_up()
        assert await redis_client.zscore(keys.tenant_streams("acme"), f"{kept.id}:0")


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


async def test_a_flushed_redis_that_forgot_the_scripts_is_taught_them_again(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    async with opened(redis_settings) as ledger:
        await taken(ledger, Limits(requests=5), Need(0), 1)
        await redis_client.script_flush()
        await redis_client.flushall()
        assert len(await taken(ledger, Limits(requests=5), Need(0), 6)) == 5
        assert ledger.counts.local == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(("admit", "settle")), st.integers(1, 300), st.integers(0, 300)), min_size=1, max_size=25
)


@settings(max_examples=40)
@given(requests=st.integers(0, 12), tokens=st.integers(0, 1500), steps=STEPS)
def test_the_scripts_do_the_sums_of_the_policy(
    redis_server: RedisServer, requests: int, tokens: int, steps: list[tuple[str, int, int]]
) -> None:
    """Step by step, with the times that Redis itself noted, the levels are equal to the last microsecond."""
    limits = Limits(requests, tokens)
    client = PlainRedis.from_url(redis_server.settings().url)
    tenant = f"model-{secrets.token_hex(4)}"
    rates, open_streams = keys.tenant_rates(tenant), keys.tenant_streams(tenant)
    account, opened_grants = Account(), []
    try:
        for number, (what, asked, spent) in enumerate(steps):
            if what == "admit":
                amounts = (f"g{number}", 1, asked, limits.requests, limits.tokens, 0, 60_000_000)
                ok, in_requests, in_tokens, _ = client.eval(ADMIT, 2, rates, open_streams, *amounts)
                if ok:
                    now = int(client.hget(rates, "at"))
                    fits, levels = account.admit(limits, Need(asked), 0, now)
                    assert fits
                    assert (levels.requests, levels.tokens) == (in_requests, in_tokens)
                    opened_grants.append((f"g{number}", asked))
            elif opened_grants:
                grant, held = opened_grants.pop()
                unused = held - spent
                client.eval(SETTLE, 2, rates, open_streams, grant, 1, unused, limits.requests, limits.tokens)
                if limits.tokens and unused:
                    account.settle(limits, unused, int(client.hget(rates, "at")))
                    assert account._tokens == int(client.hget(rates, "tokens"))
    finally:
        client.delete(rates, open_streams)
        client.close()
