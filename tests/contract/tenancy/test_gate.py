"""Who is let in: keys over a real Redis that dies, freezes, forgets and comes back; static keys, tokens, scopes."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis.asyncio import Redis

from services.gateway.access import keyring as keyrings
from services.gateway.access.caller import Caller
from services.gateway.access.gate import Gate
from shared import keys
from shared.config import Config, GatewaySettings, JwtSettings, RedisSettings, TenantSettings
from shared.errors import BadRequest, LinkLost, Unauthorised
from shared.policy.limits import Limits
from shared.tasks import Tasks
from shared.tenancy.api_key import make
from shared.tenancy.register import Register
from tests.contract.tenancy.providers import AUDIENCE, ISSUER, RSA_KEY, token
from tests.servers import RedisServer

NOBODYS = f"bt-{'0' * 12}-{'x' * 43}"


@asynccontextmanager
async def opened(
    redis: RedisSettings, tenant: dict[str, TenantSettings] | None = None, **settings: Any
) -> AsyncIterator[Gate]:
    gate = Gate("gateway-1", Config(redis=redis, gateway=GatewaySettings(**settings), tenant=tenant or {}))
    await gate.keyring.catch_up()
    tasks = Tasks("a test")
    _ = [tasks.spawn(work, name="gate") for work in (gate.line.run(), gate.keyring.follow())]
    try:
        yield gate
    finally:
        assert await tasks.close() == []
        await gate.keyring.close()
        await gate.line.close()
        if gate.tokens is not None:
            await gate.tokens.close()


async def new_key(redis: RedisSettings, tenant: str = "acme", *scenarios: str) -> str:
    kept, key = make(tenant, list(scenarios), now=int(time.time()))
    client = Redis.from_url(redis.url)
    await Register(client).create(kept, "a test")
    await client.aclose()
    return key


async def until(condition: Any, what: str) -> None:
    try:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  nothing announces it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not come") from None


async def test_auto_asks_nobody_until_there_is_a_key_and_then_everybody_for_ever(redis_settings: RedisSettings) -> None:
    async with opened(redis_settings) as gate:
        assert (await gate.identify("")).tenant == "anonymous"
        assert (await gate.identify(NOBODYS)).tenant == "anonymous"
        key = await new_key(redis_settings)
        assert (await gate.identify(key)).tenant == "acme"
        for wrong in ("", "nonsense", NOBODYS, key[:-1]):
            with pytest.raises(Unauthorised):
                await gate.identify(wrong)
        client = Redis.from_url(redis_settings.url)
        await client.flushall()
        await client.aclose()
        await until(lambda: gate.keyring._heard == "0-0", "news of the flush")
        for wrong in ("", key):
            with pytest.raises(Unauthorised):
                await gate.identify(wrong)


async def test_a_key_made_elsewhere_is_heard_of_without_being_shown(redis_settings: RedisSettings) -> None:
    async with opened(redis_settings) as gate:
        await new_key(redis_settings)
        await until(lambda: gate.asks, "news of the key")
    async with opened(redis_settings) as later:
        assert later.asks
    async with opened(redis_settings, auth="none") as never:
        assert (await never.identify("")).tenant == "anonymous"


@pytest.mark.parametrize("settings", [{"auth": "keys"}, {"api_keys": ("static",)}])
async def test_some_settings_ask_from_the_start(redis_settings: RedisSettings, settings: dict[str, Any]) -> None:
    async with opened(redis_settings, **settings) as gate:
        with pytest.raises(Unauthorised):
            await gate.identify("")


async def test_a_reload_that_takes_the_last_static_key_away_opens_nothing(redis_settings: RedisSettings) -> None:
    async with opened(redis_settings, api_keys=("one",)) as gate:
        (await gate.prepare(Config(redis=redis_settings)))()  # nobody was refused before
        for wrong in ("", "one"):
            with pytest.raises(Unauthorised):
                await gate.identify(wrong)


async def test_a_static_key_belongs_to_the_default_tenant(redis_settings: RedisSettings) -> None:
    async with opened(redis_settings, api_keys=("one", "clé")) as gate:
        for number, key in enumerate(("one", "clé"), 1):
            caller = await gate.identify(key)
            assert (caller.tenant, caller.key_id, caller.scenarios) == ("default", f"configured-{number}", None)
        with pytest.raises(Unauthorised):
            await gate.identify("\udcff")  # bytes that are no text


async def test_keys_and_tokens_come_in_side_by_side(redis_settings: RedisSettings, tmp_path: Any) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    tokens = JwtSettings(key_file=str(pem), issuer=ISSUER, audience=AUDIENCE)
    key = await new_key(redis_settings, "beta")
    async with opened(redis_settings, jwt=tokens, api_keys=("static",)) as gate:
        assert [(await gate.identify(one)).tenant for one in (token(), key, "static")] == ["acme", "beta", "default"]
        with pytest.raises(Unauthorised, match="expired"):
            await gate.identify(token(exp=1))


async def test_a_caller_may_use_what_its_key_and_its_tenant_may(redis_settings: RedisSettings) -> None:
    tenant = {"acme": TenantSettings(scenarios=("a", "b"), priority=3, weight=2.0, requests_per_minute=7)}
    async with opened(redis_settings, tenant) as gate:
        both = await gate.identify(await new_key(redis_settings, "acme"))
        assert (both.scenarios, both.priority, both.weight) == ({"a", "b"}, 3, 2.0)
        assert (await gate.identify(await new_key(redis_settings, "acme", "b", "c"))).scenarios == {"b"}
        assert (await gate.identify(await new_key(redis_settings, "beta", "c"))).scenarios == {"c"}
        assert gate.rules.limits("acme") == Limits(requests=7)
        assert gate.rules.limits("beta") is None
        fresh = Config(
            tenant={"acme": TenantSettings(tokens_per_minute=5), "default": TenantSettings(concurrent_streams=1)}
        )
        (await gate.prepare(fresh))()
        assert gate.rules.limits("acme") == Limits(tokens=5)
        assert gate.rules.limits("beta") == Limits(streams=1)


async def test_without_redis_known_keys_go_on_and_unknown_ones_are_not_called_wrong(
    own_redis_server: RedisServer,
) -> None:
    redis = own_redis_server.settings()
    known, unknown = await new_key(redis), await new_key(redis)
    async with opened(redis) as gate:
        assert (await gate.identify(known)).tenant == "acme"
        own_redis_server.kill()
        await until(lambda: not gate.keyring._in_step, "the end of Redis")
        for _ in range(100):
            assert (await gate.identify(known)).tenant == "acme"
        assert gate.keyring.counts.stale >= 100
        with pytest.raises(LinkLost, match="cannot be checked now"):
            await gate.identify(unknown)
        with pytest.raises(Unauthorised):
            await gate.identify(known[:-1] + ("a" if known[-1] != "a" else "b"))
        own_redis_server.start()
        await until(lambda: gate.keyring._in_step and not gate.line.down, "Redis again")
        assert (await gate.identify(unknown)).tenant == "acme"


async def test_what_is_known_goes_on_for_a_bounded_time_only(own_redis_server: RedisServer) -> None:
    redis = own_redis_server.settings()
    key = await new_key(redis)
    async with opened(redis, key_stale_s=0.05) as gate:
        assert await gate.identify(key)
        own_redis_server.kill()
        await until(lambda: not gate.keyring._in_step, "the end of Redis")
        await asyncio.sleep(0.06)
        with pytest.raises(LinkLost):
            await gate.identify(key)


async def test_a_frozen_redis_holds_a_known_key_up_once_at_most(own_redis_server: RedisServer) -> None:
    redis = own_redis_server.settings()
    known, unknown = await new_key(redis), await new_key(redis)
    async with opened(redis) as gate:
        await gate.identify(known)
        own_redis_server.signal(signal.SIGSTOP)
        try:
            asked = [gate.identify(key) for key in (known, unknown) for _ in range(50)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer).__name__ for answer in answers] == ["Caller"] * 50 + ["LinkLost"] * 50
            assert gate.line.down
            before = time.monotonic()
            for _ in range(200):
                assert (await gate.identify(known)).tenant == "acme"
            assert gate.line.counts.outages == 1
            assert time.monotonic() - before < 5  # two hundred waits would be a hundred seconds
        finally:
            own_redis_server.signal(signal.SIGCONT)
        await until(lambda: gate.keyring._in_step and not gate.line.down, "Redis again")


async def test_a_revocation_while_redis_was_away_is_known_when_it_is_back(own_redis_server: RedisServer) -> None:
    redis = own_redis_server.settings()
    key = await new_key(redis)
    async with opened(redis) as gate:
        await gate.identify(key)
        gate.keyring._in_step = False  # as after a connection that broke and missed what came
        client = Redis.from_url(redis.url)
        await client.hset(keys.api_key(key.split("-")[1]), "revoked", "1")  # past the register: nobody tells
        await client.aclose()
        with pytest.raises(Unauthorised, match="revoked"):
            await gate.identify(key)


async def test_a_change_that_overtakes_an_answer_is_not_lost(redis_settings: RedisSettings) -> None:
    key = await new_key(redis_settings)
    async with opened(redis_settings) as gate:
        asking = asyncio.ensure_future(gate.identify(key))
        await asyncio.sleep(0)  # its look-up is on the way
        gate.keyring._take([(b"9999999999999-0", {b"what": b"revoked", b"id": key.split("-")[1].encode()})])
        await asking
        before = gate.keyring.counts.lookups
        await gate.identify(key)
        assert gate.keyring.counts.lookups == before + 1


async def test_ids_that_are_no_keys_are_remembered_and_the_memory_is_bounded(
    redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyrings, "KNOWN", 20)
    known = await new_key(redis_settings)
    async with opened(redis_settings, auth="keys") as gate:
        await gate.identify(known)
        for number in range(100):
            with pytest.raises(Unauthorised):
                await gate.identify(f"bt-{number:012d}-{'x' * 43}")
        assert (len(gate.keyring._unknown), len(gate.keyring._entries)) == (20, 1)
        assert (await gate.identify(known)).tenant == "acme"
        before = gate.keyring.counts.lookups
        for _ in range(10):
            with pytest.raises(Unauthorised):
                await gate.identify(f"bt-{99:012d}-{'x' * 43}")
        assert gate.keyring.counts.lookups == before


async def test_refused_credentials_are_written_down_up_to_a_bound_and_never_themselves(
    redis_settings: RedisSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "baton.audit"):
        async with opened(redis_settings, auth="keys") as gate:
            for number in range(300):
                with pytest.raises(Unauthorised):
                    await gate.identify(f"sk-very-secret-{number}")
    lines = [record for record in caplog.records if record.name == "baton.audit"]
    assert 1 <= len(lines) <= 40
    assert all(record.__dict__["event"] == "credential.refused" for record in lines)
    assert not any("very-secret" in str(record.__dict__) for record in lines)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (BadRequest("no"), "bad_request"),
        (asyncio.CancelledError(), "cancelled"),
        (ValueError(), "internal_error"),
    ],
)
async def test_how_a_question_ended_is_written_down_whether_or_not_it_was_counted(
    redis_settings: RedisSettings, caplog: pytest.LogCaptureFixture, error: BaseException | None, outcome: str
) -> None:
    async with opened(redis_settings, {"acme": TenantSettings(requests_per_minute=5)}) as gate:
        with caplog.at_level(logging.INFO, "baton.audit"):
            for tenant in ("acme", "unlimited"):
                with pytest.raises(type(error)) if error else nullcontext():
                    async with gate.counted(Caller(tenant, "k1"), "chat"):
                        if error is not None:
                            raise error
    lines = [record.__dict__ for record in caplog.records if record.name == "baton.audit"]
    assert [(line["event"], line["tenant"], line["outcome"]) for line in lines] == [
        ("key.used", "acme", outcome),
        ("key.used", "unlimited", outcome),
    ]


async def test_last_used_is_when_the_secret_was_right(redis_settings: RedisSettings, redis_client: Redis) -> None:
    key = await new_key(redis_settings)
    name = keys.api_key(key.split("-")[1])
    async with opened(redis_settings) as gate:
        with pytest.raises(Unauthorised):
            await gate.identify(key[:-1] + ("a" if key[-1] != "a" else "b"))
        await gate.line.flushed()
        assert await redis_client.hget(name, "used") == b"0"
        await gate.identify(key)
        await gate.line.flushed()
        assert int(await redis_client.hget(name, "used") or 0) > time.time() - 60
