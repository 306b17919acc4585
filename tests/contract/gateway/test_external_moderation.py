"""Moderation by a service of one's own: a real server, in time, slow, failing and dead."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from services.gateway.content.external import BREAK_AFTER
from shared.config import ModeratorSettings
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.judge import Judge, open_judge
from tests.contract.gateway.wire import HELLO
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINE = [f" word{number}" for number in range(20)]
TEXT = "".join(FINE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_judge() -> AsyncIterator[Judge]:
    async with open_judge() as judge:
        yield judge


@pytest_asyncio.fixture(loop_scope="module")
async def judge(one_judge: Judge, house: House) -> AsyncIterator[Judge]:
    for name in ("judge", "lenient"):
        service = house.gateway._moderation._services[name]
        service._failures = 0
    yield one_judge
    one_judge.calm()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer, one_judge: Judge) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)
    common: dict[str, Any] = {
        "kind": "http", "url": one_judge.url, "api_key": "judge-key", "model": "strict",
        "timeout_s": 0.5, "stream_chars": 30, "overlap_chars": 6, "max_concurrent": 8,
    }  # fmt: skip
    moderation = {
        "judge": ModeratorSettings(**common),
        "lenient": ModeratorSettings(**common, on_error="allow", action="flag"),
    }
    scenario = {"moderate_prompt": ("judge",), "moderate_answer": ("judge", "lenient")}
    nats, redis = nats_server.settings(prefix="judged"), redis_server.settings()
    async with open_house(nats, redis, scenario=scenario, moderation=moderation) as house:
        yield house


def says(house: House, words: list[str]) -> None:
    house.fleet.words = lambda request: words


async def collect(stream: Any, got: list[str]) -> None:
    async for chunk in stream:  # one by one: what came before an error is kept
        got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401


async def streamed(client: AsyncOpenAI, **more: Any) -> tuple[str, str]:
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True, **more)
    text, reason = "", ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or ""
    return text, reason


async def test_a_judged_stream_is_whole_and_was_judged_in_overlapping_windows(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    says(house, FINE)
    assert await streamed(client) == (TEXT, "stop")
    windows = [asked[0] for asked in judge.asked[1:] if asked[0] != "hello"]
    assert len(windows) >= 4
    seen = windows[0]
    for window in windows[1:]:
        if window in seen:  # the other moderator's
            continue
        assert window[:6] == seen[-6:]
        seen += window[6:]
    assert seen == TEXT


async def test_text_that_is_not_judged_yet_is_not_delivered_and_what_is_flagged_never_is(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    says(house, [*FINE[:12], " ev", "il", *FINE[12:]])
    text, reason = await streamed(client)
    assert reason == "content_filter"
    assert "ev" not in text
    assert "".join(FINE[:12]).startswith(text)
    assert text
    answer = await client.chat.completions.create(model="chat", messages=HELLO, n=2)
    assert {(c.message.content, c.finish_reason) for c in answer.choices} == {(text, "content_filter")}
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 2 * 12


async def test_a_prompt_that_the_service_flags_is_refused_with_its_category(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "an evil plan"}])
    assert error.value.code == "content_filter"
    assert "villainy" in error.value.message
    assert house.fleet.requests == []


DEEP = b'{"results":[{"flagged":false}],"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "answers", [(500, b"oops"), (200, b"no json"), (200, b'{"results":[]}'), (302, b""), (200, DEEP)]
)
async def test_a_failing_service_refuses_prompts_where_nothing_may_pass_unjudged(
    house: House, client: AsyncOpenAI, judge: Judge, answers: tuple[int, bytes]
) -> None:
    judge.answers = answers
    with pytest.raises(openai.InternalServerError) as error:
        await client.chat.completions.create(model="chat", messages=HELLO)
    assert error.value.status_code == 503
    assert error.value.code == "moderation_unavailable"
    assert error.value.response.headers["retry-after"]


async def test_a_service_that_fails_during_a_stream_ends_it_with_an_error(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    says(house, FINE)
    house.fleet.may_speak.clear()
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    judge.answers = (500, b"oops")
    house.fleet.may_speak.set()
    got: list[str] = []
    with pytest.raises(openai.APIError) as error:
        await collect(stream, got)
    assert error.value.code == "moderation_unavailable"
    assert "".join(got) == ""


async def test_a_dead_service_is_a_failing_one(house: House, client: AsyncOpenAI, judge: Judge) -> None:
    service = house.gateway._moderation._services["judge"]
    settings = service.settings
    service.settings = dataclasses.replace(settings, url="http://127.0.0.1:1/v1/moderations")
    try:
        with pytest.raises(openai.InternalServerError) as error:
            await client.chat.completions.create(model="chat", messages=HELLO)
    finally:
        service.settings = settings
    assert error.value.code == "moderation_unavailable"


async def test_a_slow_service_times_out_and_one_that_may_be_missed_is_missed(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    judge.waits_s = 5.0
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="chat", messages=HELLO)
    service = house.gateway._moderation._services["lenient"]
    assert await service.judge(["evil"]) is None
    judge.waits_s, judge.answers = 0.0, (200, DEEP)
    assert await service.judge(["evil"]) is None


async def test_a_service_that_keeps_failing_is_left_alone_for_a_while(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    judge.answers = (500, b"oops")
    for _ in range(BREAK_AFTER + 3):
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="chat", messages=HELLO)
    assert len(judge.asked) == BREAK_AFTER
    service = house.gateway._moderation._services["judge"]
    service._again_at = 0.0  # the pause is over
    judge.answers = None
    says(house, FINE)
    assert await streamed(client) == (TEXT, "stop")


async def test_questions_under_way_are_bounded(house: House, client: AsyncOpenAI, judge: Judge) -> None:
    says(house, FINE[:2])
    judge.waits_s = 0.02
    asked = [client.chat.completions.create(model="chat", messages=HELLO) for _ in range(20)]
    answers = await asyncio.gather(*asked)
    assert all(answer.choices[0].message.content == "".join(FINE[:2]) for answer in answers)
    assert judge.most <= 16  # 8 of each of two moderators


async def test_a_client_that_leaves_while_its_text_is_judged_leaves_nothing_behind(
    house: House, client: AsyncOpenAI, judge: Judge
) -> None:
    says(house, FINE)
    house.fleet.may_speak.clear()
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    judge.may_answer.clear()
    house.fleet.may_speak.set()
    await house.until(lambda: len(judge.asked) > 2, "a question")
    await stream.close()
    await house.empty()
    judge.may_answer.set()
    tasks = house.gateway._instance.tasks
    await house.until(lambda: "moderation" not in tasks.names, "the end of the questions")
