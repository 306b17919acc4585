"""Keys and limits at both entrances, with the real client: who comes in, who is told what, and what is given back.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
from typing import Any

import msgpack
import nats
import openai
import pytest
from redis.asyncio import Redis

from services.gateway import desk
from shared import keys
from shared.errors import Code
from shared.tenancy.register import Register
from tests.contract.gateway.house import House, failed
from tests.contract.gateway.tenants.clients import ask, client_of, new_key
from tests.contract.gateway.wire import HELLO, parts, post, raw
from tests.servers import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_gateway_without_any_key_is_open_until_the_first_is_made(house: House, redis: Redis) -> None:
    assert (await ask(house, "anything")).choices
    assert (await ask(house, f"bt-{'0' * 12}-{'x' * 43}")).choices  # of our form, but nobody's
    key = await new_key(redis, "other")
    assert (await ask(house, key)).choices
    await house.until(lambda: house.gateway._desk._gate.asks, "a gateway that asks for keys")
    with pytest.raises(openai.AuthenticationError) as refused:
        await ask(house, "anything")
    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["www-authenticate"] == "Bearer"
    assert refused.value.request_id


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {}", "  Bearer {}  "])
async def test_32_the_key_comes_as_bearer_in_any_case_with_any_spaces(house: House, redis: Redis, header: str) -> None:
    key = await new_key(redis, "other")
    body = json.dumps({"model": "chat", "prompt": "x", "max_tokens": 1}).encode()
    lines = (
        f"Authorization: {header.format(key)}",
        "OpenAI-Organization: o",
        "OpenAI-Project: p",
        "X-Stainless-Lang: x",
    )
    assert parts(await raw(house, post("/v1/completions", body, *lines)))[0] == 200
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for line in (
        f"Authorization: {header.format(wrong)}",
        f"Authorization: Basic {key}",
        f"Authorization: {key}",
        "X: y",
    ):
        status, headers, rest = parts(await raw(house, post("/v1/completions", body, line)))
        assert (status, headers["www-authenticate"], json.loads(rest)["error"]["code"]) == (
            401,
            "Bearer",
            "invalid_api_key",
        )


async def test_a_key_may_use_its_scenarios_only_and_sees_no_others(house: House, redis: Redis) -> None:
    key = await new_key(redis, "other", "chat")
    assert (await ask(house, key)).choices
    for barred in (await new_key(redis, "other", "code"), await new_key(redis, "boxed")):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await ask(house, barred)
        assert (refused.value.type, refused.value.code) == ("permission_error", "permission_error")
        async with client_of(house, barred) as client:
            assert (await client.models.list()).data == []
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.retrieve("chat")


async def test_an_expired_key_is_refused_and_told_why_to_its_owner_only(house: House, redis: Redis) -> None:
    key = await new_key(redis, "other", lifetime_s=1, made_s=-5)
    with pytest.raises(openai.AuthenticationError, match="expired"):
        await ask(house, key)
    with pytest.raises(openai.AuthenticationError, match="Incorrect or missing"):
        await ask(house, key[:-1] + ("a" if key[-1] != "a" else "b"))


async def test_a_revoked_key_is_refused_by_every_gateway_that_knew_it(houses: Any, house: House, redis: Redis) -> None:
    key = await new_key(redis, "other")
    for one in houses:
        assert (await ask(one, key)).choices
    entry = await Register(redis).revoke(key.split("-")[1])
    assert entry
    for one in houses:
        ring = one.gateway._desk._gate.keyring
        await one.until(lambda ring=ring: ring._heard == entry, "news of the key", 2.0)
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            await ask(one, key)
    assert await Register(redis).revoke(key.split("-")[1]) == ""
    assert await Register(redis).revoke("0" * 12) is None


async def test_a_tenants_requests_are_counted_and_the_last_is_told_when_to_come_back(
    house: House, redis: Redis
) -> None:
    key = await new_key(redis, "slow")
    async with client_of(house, key) as client:
        for left in ("2", "1", "0"):
            answer = await client.chat.completions.with_raw_response.create(
                model="chat", messages=HELLO, max_tokens=4, stream=left == "1"
            )
            assert answer.headers["x-ratelimit-limit-requests"] == "3"
            assert answer.headers["x-ratelimit-remaining-requests"] == left
            assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
            assert "x-ratelimit-limit-tokens" not in answer.headers
            if left == "1":
                assert [chunk async for chunk in answer.parse()]
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(house, key)
    error, headers = refused.value, refused.value.response.headers
    assert (error.type, error.code) == ("rate_limit_exceeded", "rate_limit_exceeded")
    assert "requests per minute: 3 are allowed" in error.message
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 20
    assert "x-should-retry" not in headers


async def test_unused_tokens_come_back_and_what_can_never_fit_says_so(house: House, redis: Redis) -> None:
    key = await new_key(redis, "small")
    for _ in range(2):  # each sets 150 of 200 aside, and uses few
        answer = await ask(house, key, max_tokens=150 - 40, n=1)
        assert answer.usage.total_tokens < 60
    with pytest.raises(openai.RateLimitError) as never:
        await ask(house, key, max_tokens=500)
    assert (never.value.type, never.value.code) == ("insufficient_quota", "insufficient_quota")
    assert never.value.response.headers["x-should-retry"] == "false"
    assert never.value.response.headers["x-ratelimit-limit-tokens"] == "200"
    with pytest.raises(openai.RateLimitError, match="tokens per minute: 200 are allowed") as full:
        await ask(house, key, max_tokens=160)
    assert full.value.code == "rate_limit_exceeded"


async def test_an_answer_without_a_bound_sets_little_aside_and_is_charged_at_its_end(
    house: House, redis: Redis
) -> None:
    key = await new_key(redis, "small")
    await redis.delete(keys.tenant_rates("small"))
    async with client_of(house, key) as client:
        answer = await client.chat.completions.with_raw_response.create(model="chat", messages=HELLO)
        usage = answer.parse().usage
        aside = 200 - int(answer.headers["x-ratelimit-remaining-tokens"])
        assert aside == usage.prompt_tokens + 20
        again = await client.chat.completions.with_raw_response.create(model="chat", messages=HELLO)
    assert abs(200 - int(again.headers["x-ratelimit-remaining-tokens"]) - usage.total_tokens - aside) <= 5


async def test_streams_are_limited_and_come_back_however_they_end(house: House, redis: Redis) -> None:
    key = await new_key(redis, "narrow")
    with pytest.raises(openai.RateLimitError) as never:
        await ask(house, key, n=3)
    assert never.value.code == "insufficient_quota"
    house.fleet.may_speak.clear()
    async with client_of(house, key) as client:
        held = [await client.chat.completions.create(model="chat", messages=HELLO, stream=True) for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="concurrent streams: 2 are allowed") as full:
            await ask(house, key)
        assert full.value.response.headers["retry-after"] == "1"
        for stream in held:
            await stream.close()  # the clients vanish
    await house.empty()
    house.fleet.calm()
    assert (await ask(house, key, n=2)).choices
    house.fleet.fails_at[0, 1] = failed(Code.ENGINE_FAILED, retryable=False)
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            await ask(house, key, n=2)
    house.fleet.calm()
    assert (await ask(house, key, n=2)).choices


async def test_an_error_after_admission_carries_the_limits_too(house: House, redis: Redis) -> None:
    key = await new_key(redis, "wide")
    house.fleet.fails_at[0, 0] = failed(Code.ENGINE_FAILED, retryable=False)
    with pytest.raises(openai.InternalServerError) as broken:
        await ask(house, key)
    assert broken.value.response.headers["x-ratelimit-limit-requests"] == "10000"
    assert "x-ratelimit-remaining-tokens" in broken.value.response.headers


async def test_two_gateways_share_one_limit_exactly(houses: tuple[House, House], house: House, redis: Redis) -> None:
    key = await new_key(redis, "shared")
    asked = [ask(houses[number % 2], key, max_tokens=1) for number in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    good = [answer for answer in answers if not isinstance(answer, Exception)]
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {openai.RateLimitError}
    assert 20 <= len(good) <= 22  # one more every three seconds


async def test_nats_clients_are_held_to_the_same(house: House, redis: Redis, nats_server: NatsServer) -> None:
    key, barred = await new_key(redis, "narrow"), await new_key(redis, "other", "code")
    settings = nats_server.settings()
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)

    async def said(**fields: Any) -> dict[str, Any]:
        request = msgpack.packb({"v": 1, "prompt": "x", "max_tokens": 1, **fields})
        reply = await client.request(house.subjects.requests("chat"), request, timeout=5)
        return dict(msgpack.unpackb(reply.data))

    try:
        assert (await said(api_key=key))["done"]
        assert (await said())["error"]["code"] == "invalid_api_key"
        assert (await said(api_key=barred))["error"]["code"] == "permission_error"
        never = (await said(api_key=key, n=3))["error"]
        assert (never["code"], never["retryable"]) == ("insufficient_quota", False)
        house.fleet.may_speak.clear()
        held = asyncio.ensure_future(said(api_key=key, n=2))
        await house.until(lambda: len(house.gateway._relay) == 2, "two streams")
        full = (await said(api_key=key))["error"]
        assert (full["code"], full["retryable"], full["retry_after_s"]) == ("rate_limit_exceeded", True, 1)
        house.fleet.may_speak.set()
        assert (await held)["done"]
    finally:
        await client.close()


async def test_who_is_certainly_over_its_requests_is_refused_before_any_work(
    house: House, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await new_key(redis, "hasty")
    for _ in range(2):
        assert (await ask(house, key)).choices
    with pytest.raises(openai.RateLimitError):
        await ask(house, key)

    async def planned(*_: object) -> None:
        raise AssertionError("the prompt was worked on")

    monkeypatch.setattr(desk, "plan", planned)
    asked = house.gateway._desk._gate.line.counts.commands
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(house, key)
    headers = refused.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 30
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert "requests per minute: 2 are allowed" in str(refused.value)
    assert house.gateway._desk._gate.line.counts.commands == asked
