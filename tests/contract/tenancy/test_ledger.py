"""The limits of tenants over a real Redis: exact for all gateways together, and given back once."""

import asyncio
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as PlainRedis
from redis.asyncio import Redis

from services.gateway.access import ledger as ledgers
from services.gateway.access.caller import Caller
from services.gateway.access.scripts import ADMIT, SETTLE
from shared import keys
from shared.config import RedisSettings
from shared.errors import LimitReached, NeverFits
from shared.policy.limits import Account, Limits, Need
from tests.contract.tenancy.ledgers import ACME, opened, streams, taken, tokens_used
from tests.servers import RedisServer


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
        more = Limits(tokens=100, streams=2)
        with pytest.raises(LimitReached, match="concurrent streams: 2 are allowed, 2 are open"):
            await ledger.admit(ACME, "chat", more, Need(1))


async def test_a_request_that_takes_neither_tokens_nor_a_stream_is_counted_and_leaves_nothing_to_give_back(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    limits = Limits(requests=20, tokens=10, streams=1)
    async with opened(redis_settings, "a") as a, opened(redis_settings, "b") as b:
        held = await a.admit(ACME, "chat", limits, Need(10))  # full, but for requests
        counted = await asyncio.gather(*(taken(one, limits, Need(0, 0), 30) for one in (a, b)))
        grants = [grant for some in counted for grant in some]
        assert 19 <= len(grants) <= 20
        assert min(int(grant.headers["x-ratelimit-remaining-requests"]) for grant in grants) == 0
        assert {grant.headers["x-ratelimit-limit-tokens"] for grant in grants} == {"10"}
        assert (sum(map(len, a._open.values())), len(b._open)) == (1, 0)
        sent = a._line.counts.commands
        for grant in grants:
            a.settle(grant, 0)
        await a._line.flushed()
        assert a._line.counts.commands == sent + 1
        assert await streams(redis_client) == 1
        a.settle(held, 10)


async def test_who_is_turned_away_unasked_would_be_turned_away_by_redis_and_nobody_longer(
    redis_settings: RedisSettings,
) -> None:
    limits = Limits(requests=60, tokens=10)  # a request drains in a second
    async with opened(redis_settings, "a") as ledger, opened(redis_settings, "b") as other:
        ledger.check("acme", limits)  # nothing is known yet
        assert len(await taken(ledger, limits, Need(0, 0), 62)) >= 60
        with pytest.raises(LimitReached, match="requests per minute: 60 are allowed") as refused:
            ledger.check("acme", limits)
        assert 0 < refused.value.retry_after_s <= 1
        with pytest.raises(LimitReached):
            await other.admit(ACME, "chat", limits, Need(0, 0))
        ledger.check("acme", Limits(tokens=10))  # of tokens, some may have been given back at another gateway
        ledger.check("other", limits)
        ledger.check("acme", Limits(requests=60_000))  # raised, as full as before; but it drains at once
        await asyncio.sleep(refused.value.retry_after_s + 0.05)
        ledger.check("acme", limits)
        assert await taken(ledger, limits, Need(0, 0), 1)


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


async def test_a_limit_that_is_lowered_keeps_nobody_out_longer_than_its_bucket_takes_to_drain(
    redis_settings: RedisSettings, redis_client: Redis
) -> None:
    async with opened(redis_settings) as ledger:
        before, after = Limits(requests=5, tokens=600_000), Limits(requests=1, tokens=600)
        grant = await ledger.admit(ACME, "chat", before, Need(600_000))
        with pytest.raises(LimitReached, match="tokens per minute: 600 are allowed, 0 are left") as short:
            await ledger.admit(ACME, "chat", after, Need(600))
        assert 59 < short.value.retry_after_s <= 60
        ledger.settle(grant, 300_000)  # by what held when it was let in
        grant = await ledger.admit(ACME, "chat", Limits(tokens=600), Need(250))
        assert 500 < await tokens_used(redis_client) <= 550
        ledger.settle(grant, 250)
        assert (await ledger.admit(ACME, "chat", before, Need(1))).headers["x-ratelimit-remaining-requests"] == "3"


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
