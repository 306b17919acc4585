"""Moderation by rules, through the real openai client, raw connections and NATS."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import msgpack
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from shared.config import ModeratorSettings
from shared.errors import Code
from shared.nats_bus import NatsBus
from tests.contract.gateway.house import House, failed, open_house
from tests.contract.gateway.wire import HELLO
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = ["A", " rec", "ipe", " for", " a", " bo", "mb", " is", " here", "."]
CLEAN = "A recipe for a "


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)
    files = tmp_path_factory.mktemp("rules")
    for name, lines in {
        "weapons": "# what not to build\nbomb\nnerve gas\n",
        "secrets": r"\bsk-[a-z0-9]{4}\b" + "\n",
        "rude": "darn\n",
        "later": "nothing yet\n",
    }.items():
        (files / name).write_text(lines)
    moderation = {
        "house": ModeratorSettings(
            words={"weapons": str(files / "weapons")}, patterns={"secrets": str(files / "secrets")}
        ),
        "manners": ModeratorSettings(words={"rude": str(files / "rude")}, action="flag"),
        "later": ModeratorSettings(words={"later": str(files / "later")}),
    }
    scenario = {
        "tool_format": "hermes",
        "moderate_prompt": ("house", "manners"),
        "moderate_answer": ("house", "manners", "later"),
    }
    nats, redis = nats_server.settings(prefix="moderated"), redis_server.settings()
    async with open_house(nats, redis, scenario=scenario, moderation=moderation) as house:
        house.files = files  # type: ignore[attr-defined]
        both = Barrier(2)
        list(house.gateway._threads.map(lambda _: both.wait(5), range(2)))  # threads that are not the first test's
        yield house


def says(house: House, words: list[str]) -> None:
    house.fleet.words = lambda request: words


async def test_a_streamed_answer_ends_before_the_match_and_says_why(house: House, client: AsyncOpenAI) -> None:
    says(house, SAID)
    stream = await client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == CLEAN
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "content_filter"
    assert sum(bool(c.choices and c.choices[0].finish_reason) for c in chunks) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8  # the word behind the match decides that it is one
    assert chunks[-1].usage.prompt_tokens == house.fleet.requests[0].prompt_tokens
    await house.until(lambda: len(house.fleet.cancels) == 1, "the workers' cancel")


async def test_a_whole_answer_has_the_text_before_the_match(house: House, client: AsyncOpenAI) -> None:
    says(house, SAID)
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.choices[0].message.content == CLEAN
    assert answer.choices[0].finish_reason == "content_filter"
    completion = await client.completions.create(model="chat", prompt="hello")
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == (CLEAN, "content_filter")


async def test_a_match_over_two_attempts_is_caught(house: House, client: AsyncOpenAI) -> None:
    says(house, SAID)
    house.fleet.fails_at[0, 6] = failed(Code.OVERLOADED, retryable=True)  # between "bo" and "mb"
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (CLEAN, "content_filter")
    assert len(house.fleet.requests) == 2


async def test_a_match_at_the_very_end_is_caught_when_the_answer_ends(house: House, client: AsyncOpenAI) -> None:
    says(house, SAID[:7])
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (CLEAN, "content_filter")
    says(house, [*SAID[:6], "at"])
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (CLEAN + "boat", "stop")


@pytest.mark.parametrize("streamed", [True, False])
async def test_only_the_choice_that_matches_ends(house: House, client: AsyncOpenAI, streamed: bool) -> None:  # noqa: FBT001
    house.fleet.words = lambda request: SAID if request.sampling.choice == 1 else ["Fine", " by", " me"]
    texts, reasons = ["", ""], ["", ""]
    if streamed:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, n=2, stream=True)
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] += choice.finish_reason or ""
    else:
        answer = await client.chat.completions.create(model="chat", messages=HELLO, n=2)
        texts = [choice.message.content or "" for choice in answer.choices]
        reasons = [choice.finish_reason for choice in answer.choices]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3 + 8
    assert texts == ["Fine by me", CLEAN]
    assert reasons == ["stop", "content_filter"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_logprobs_show_nothing_that_the_text_does_not(house: House, client: AsyncOpenAI, streamed: bool) -> None:  # noqa: FBT001
    says(house, ["Say", " nothing", ", a bo", "mb", "!", "!"])
    asked: Any = {"model": "chat", "messages": HELLO, "logprobs": True, "top_logprobs": 1}
    if streamed:
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
    else:
        answer = await client.chat.completions.create(**asked)
        entries = answer.choices[0].logprobs.content  # type: ignore[union-attr,assignment]
        text = answer.choices[0].message.content or ""
    assert [entry.token for entry in entries] == ["Say", " nothing"]
    assert text == "Say nothing, a "


async def test_a_prompt_is_refused_as_openai_refuses_it_and_never_repeated(house: House, client: AsyncOpenAI) -> None:
    for text in ("How to build a BOMB?", "n\u200berve\n gas", "my key is sk-ab12, keep it"):
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": text}])
        assert error.value.code == "content_filter"
        assert error.value.type == "invalid_request_error"
        assert text not in error.value.message
        assert ("secrets" if "sk-" in text else "weapons") in error.value.message
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model="chat", prompt=["fine", list(b"a bomb, as tokens")])
    shown = ({"description": "makes a bomb"}, {"properties": {"a bomb": {}}}, {"properties": {"x": {"type": "bomb"}}})
    for parameters in shown:
        tool: Any = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(model="chat", messages=HELLO, tools=[tool])
        assert "weapons" in error.value.message
    assert house.fleet.requests == []


async def test_a_long_prompt_is_searched_off_the_loop_and_in_full(house: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model="chat", prompt="fine " * 500 + "nerve  gas" + " fine" * 10)
    assert error.value.code == "content_filter"


async def test_what_is_only_flagged_goes_out_and_is_written_down(
    house: House, client: AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    says(house, ["Da", "rn", " it", "."])
    caplog.set_level(logging.INFO, "baton.audit")
    audit = logging.getLogger("baton.audit")
    audit.addHandler(caplog.handler)
    try:
        answer = await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "darn"}])
    finally:
        audit.removeHandler(caplog.handler)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Darn it.", "stop")
    found = [vars(record) for record in caplog.records if getattr(record, "event", "") == "content.moderated"]
    assert {(one["moderator"], one["category"], one["action"], one["text"]) for one in found} == {
        ("manners", "rude", "flag", "prompt"),
        ("manners", "rude", "flag", "answer"),
    }
    assert "darn" not in json.dumps(found, default=str).lower()
    exposition = house.gateway._instance.telemetry.exposition().decode()
    assert (
        'baton_gateway_moderated_total{action="flag",category="rude",moderator="manners",text="answer"} 1.0'
        in exposition
    )


async def test_a_nats_client_hears_the_same(house: House, nats_server: NatsServer) -> None:
    says(house, SAID)
    bus = await NatsBus.open(nats_server.settings(prefix="moderated"), service="tests")
    got: list[dict[str, Any]] = []
    inbox = "_INBOX.moderated"
    await bus.subscribe(inbox, lambda delivery: got.append(msgpack.unpackb(delivery.data)))
    await bus.flush(5)
    try:
        for body in ({"messages": HELLO, "stream": True}, {"prompt": "a bomb"}):
            got.clear()
            await bus._nc.publish(house.subjects.requests("chat"), msgpack.packb({"v": 1, **body}), reply=inbox)
            await house.until(lambda: bool(got) and bool({"done", "error"} & set(got[-1])), "the last map")
            if "error" in got[-1]:
                assert got[-1]["error"]["code"] == "content_filter"
                assert got[-1]["error"]["retryable"] is False
            else:
                assert "".join(one.get("text", "") for one in got) == CLEAN
                assert got[-1]["finish_reason"] == "content_filter"
    finally:
        await bus.close()


async def test_a_word_list_counts_in_streams_that_run_once_it_has_changed(house: House, client: AsyncOpenAI) -> None:
    files: Path = house.files  # type: ignore[attr-defined]
    says(house, [f" word{number}" for number in range(400)])
    pace = asyncio.Semaphore(3)
    frame = house.fleet._frame

    async def paced(*given: Any, **more: Any) -> None:
        async with asyncio.timeout(10):
            await pace.acquire()
        await frame(*given, **more)

    house.fleet._frame = paced  # type: ignore[method-assign]
    later = house.gateway._moderation.rules["later"]
    try:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        text, reason, old = "", "", later.rules
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or ""
            if text.endswith("word1"):
                (files / "later").write_text("word50\n")
                await house.until(lambda: later.rules is not old, "the new rules")
                (files / "later").write_bytes(b"\xff broken")  # a broken list changes nothing
            pace.release()
    finally:
        house.fleet._frame = frame  # type: ignore[method-assign]
        (files / "later").write_text("nothing yet\n")
    assert reason == "content_filter"
    assert text.endswith("word49 ")


async def test_the_rules_answer_openais_moderation_api(house: House, client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(input=["fine", "a BOMB", "sk-ab12"])
    assert [result.flagged for result in answer.results] == [False, True, True]
    raw = answer.model_dump()
    assert raw["results"][1]["categories"]["weapons"] is True
    assert raw["results"][1]["categories"]["secrets"] is False
    one = await client.moderations.create(input="darn bomb", model="manners")
    assert one.model_dump()["results"][0]["category_scores"]["rude"] == 1.0
    assert "weapons" not in one.model_dump()["results"][0]["categories"]
    parts: Any = [{"type": "text", "text": "nerve"}, {"type": "text", "text": "gas"}]
    assert (await client.moderations.create(input=parts, model="omni-moderation-latest")).results[0].flagged
    with pytest.raises(openai.NotFoundError) as error:
        await client.moderations.create(input="x", model="nobody")
    assert error.value.code == "model_not_found"


async def test_the_responses_api_is_moderated_too(house: House, client: AsyncOpenAI) -> None:
    says(house, SAID)
    answer = await client.responses.create(model="chat", input="hello")
    assert answer.output_text == CLEAN
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "content_filter"
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(model="chat", input="a bomb")
    assert error.value.code == "content_filter"


async def test_the_arguments_of_a_call_are_moderated_before_they_are_read(house: House, client: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    said = ["Well.", '\n<tool_call>{"name": "search", ', '"arguments": {"q": "how a bo', 'mb works"', "}}</tool_call>"]
    for words, reason in ((said, "content_filter"), ([*said[:2], '"arguments": {"q": "cats"', said[4]], "tool_calls")):
        says(house, words)
        stream = await client.chat.completions.create(model="chat", messages=HELLO, tools=[tool], stream=True)
        chunks = [chunk.choices[0] async for chunk in stream]
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        arguments = "".join(call.function.arguments or "" for call in calls if call.function)
        assert "bo" not in arguments
        assert chunks[-1].finish_reason == reason
