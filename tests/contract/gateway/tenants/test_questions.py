"""What gateways answer without any worker is held to the limits of requests, and to no others."""

import asyncio
import json
import logging
import time
from typing import Any

import openai
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.tenancy.audit import Strangers
from tests.contract.gateway.house import House
from tests.contract.gateway.tenants.clients import ask, new_key
from tests.contract.gateway.wire import parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


QUESTIONS: Any = [
    ("/tokenize", {"model": "chat", "prompt": "hello"}),
    ("/detokenize", {"model": "chat", "tokens": [104, 105]}),
    ("/v1/moderations", {"input": "hello"}),
]


async def question(house: House, key: str, number: int, **changed: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    path, body = QUESTIONS[number % len(QUESTIONS)]
    answer = await raw(house, post(path, json.dumps({**body, **changed}).encode(), f"Authorization: Bearer {key}"))
    status, headers, rest = parts(answer)
    return status, headers, json.loads(rest)


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
async def test_a_question_that_no_worker_answers_counts_as_a_request(house: House, redis: Redis, number: int) -> None:
    key = await new_key(redis, "asks")
    await redis.delete(keys.tenant_rates("asks"))
    for left in ("2", "1"):
        status, headers, _ = await question(house, key, number)
        assert (status, headers["x-ratelimit-remaining-requests"]) == (200, left)
        assert headers["x-ratelimit-limit-tokens"] == headers["x-ratelimit-remaining-tokens"] == "100"
    assert (await ask(house, key)).choices
    status, headers, body = await question(house, key, number)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "requests per minute: 3 are allowed" in body["error"]["message"]
    assert 1 <= int(headers["retry-after"]) <= 20
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-baton-reason"] == "rate_limit_exceeded"
    assert await redis.zcard(keys.tenant_streams("asks")) == 0


async def test_questions_are_asked_while_tokens_and_streams_are_taken(house: House, redis: Redis) -> None:
    key = await new_key(redis, "busy")
    house.fleet.may_speak.clear()
    held = asyncio.ensure_future(ask(house, key, max_tokens=60))
    await house.until(lambda: len(house.gateway._relay) == 1, "a stream")
    with pytest.raises(openai.RateLimitError):
        await ask(house, key)
    assert [(await question(house, key, number))[0] for number in range(2)] == [200, 200]
    house.fleet.may_speak.set()
    assert (await held).choices


async def test_questions_at_two_gateways_share_one_limit_exactly(
    houses: tuple[House, House], house: House, redis: Redis
) -> None:
    key = await new_key(redis, "shared")
    await redis.delete(keys.tenant_rates("shared"))
    began = time.monotonic()
    answers = await asyncio.gather(*(question(houses[number // 3 % 2], key, number) for number in range(48)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    assert 20 <= statuses.count(200) <= 20 + (time.monotonic() - began) / 3 + 1


async def test_a_question_that_cannot_be_answered_counts_once_it_is_worked_on(house: House, redis: Redis) -> None:
    key = await new_key(redis, "asks")
    await redis.delete(keys.tenant_rates("asks"))
    assert (await question(house, key, 0, model="nobody's"))[0] == 404
    assert (await question(house, key, 0, prompt=5))[0] == 400
    status, headers, _ = await question(house, key, 1, tokens=[10**6])
    assert (status, headers["x-ratelimit-remaining-requests"]) == (400, "2")


async def test_questions_of_unlimited_tenants_cost_redis_nothing(house: House, redis: Redis) -> None:
    key = await new_key(redis, "other")
    await question(house, key, 0)
    line = house.gateway._desk._gate.line
    await line.flushed()
    before = line.counts.commands
    for number in range(6):
        status, headers, _ = await question(house, key, number)
        assert status == 200
        assert not any(name.startswith("x-ratelimit") for name in headers)
    assert line.counts.commands == before


async def test_questions_are_counted_by_the_gateway_alone_while_redis_is_away(house: House, redis: Redis) -> None:
    key = await new_key(redis, "asks")
    await redis.delete(keys.tenant_rates("asks"))
    gate = house.gateway._desk._gate
    assert (await question(house, key, 0))[0] == 200
    before, gate.line.down = gate.ledger.counts.local, True
    try:
        answers = [await question(house, key, number) for number in range(3)]
    finally:
        gate.line.down = False
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[1][1]["x-ratelimit-remaining-requests"] == "0"
    assert gate.ledger.counts.local == before + 3


async def test_questions_have_their_lines_in_the_audit_log(
    house: House, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    key = await new_key(redis, "asks")
    await redis.delete(keys.tenant_rates("asks"))
    house.gateway._desk._gate._strangers = Strangers()  # other tests may have used up this second's lines
    with caplog.at_level(logging.INFO, "baton.audit"):
        audit = logging.getLogger("baton.audit")
        audit.addHandler(caplog.handler)
        try:
            for number, changed in ((0, {}), (1, {"tokens": [10**6]}), (2, {}), (0, {})):
                await question(house, key, number, **changed)
        finally:
            audit.removeHandler(caplog.handler)
    lines = {id(record): record.__dict__ for record in caplog.records if record.name == "baton.audit"}.values()
    used = [line for line in lines if line["event"] == "key.used"]
    assert [(line["key"], line["tenant"]) for line in used] == [(key.split("-")[1], "asks")] * 3
    assert [(line["scenario"], line["outcome"], line["prompt_tokens"]) for line in used] == [
        ("chat", "ok", 0),
        ("chat", "bad_request", 0),
        ("", "ok", 0),
    ]
    assert [line["reason"] for line in lines if line["event"] == "credential.refused"] == ["rate_limit_exceeded"]
