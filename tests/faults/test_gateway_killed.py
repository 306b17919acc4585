"""F13: a gateway is killed in mid-stream. The client goes on at another one, as if nothing had been."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from shared.messages import Role
from shared.tenancy.api_key import make
from shared.tenancy.register import open_register
from tests.faults.cluster import Cluster, cluster
from tests.faults.raw_stream import Stream, begin, go_on
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"where": {"type": "string", "maxLength": 40}, "far": {"type": "boolean"}},
            "required": ["where", "far"],
            "additionalProperties": False,
        },
    },
}
TEXT = {"model": "chat", "prompt": "Once upon a time", "max_tokens": 60, "seed": 3}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "seed": 3}
USAGE = {"include_usage": True}
COUNTED = {"include_usage": True, "continuous_usage_stats": True}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/completions", {**TEXT, "stream_options": USAGE}),
    "greedy": ("/v1/completions", {**TEXT, "temperature": 0}),
    "echo": ("/v1/completions", {**TEXT, "echo": True}),
    "stop": ("/v1/completions", {**TEXT, "stop": ["ab", "zq"], "ignore_eos": True}),
    "penalties": ("/v1/completions", {**TEXT, "presence_penalty": 0.5, "repetition_penalty": 1.2}),
    "logprobs": ("/v1/completions", {**TEXT, "logprobs": 2}),
    "counted": ("/v1/completions", {**TEXT, "stream_options": COUNTED}),
    "two prompts": ("/v1/completions", {**TEXT, "prompt": ["Once", "Twice"], "n": 2, "logprobs": 1}),
    "chat": ("/v1/chat/completions", {**CHAT, "stream_options": USAGE}),
    "chat logprobs": ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2}),
    "schema": (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": LOOK["function"]["parameters"]}}},  # type: ignore[index]  # noqa: E501
    ),
    "functions": ("/v1/chat/completions", {**CHAT, "max_tokens": 200, "tools": [LOOK], "tool_choice": "required"}),
    "response": ("/v1/responses", {"model": "chat", "input": "hello", "max_output_tokens": 60, "seed": 3}),
    "response with functions": (
        "/v1/responses",
        {"model": "chat", "input": "hello", "max_output_tokens": 200, "seed": 3, "tool_choice": "required",
         "tools": [{"type": "function", "name": "look", "parameters": LOOK["function"]["parameters"]}]},  # type: ignore[index]
    ),
}  # fmt: skip
KILLED = ("text", "two prompts", "functions")
"""With a gateway that is really killed, in `make test`; the others with a connection that breaks."""
GUARD = """
[moderation.words]
kind = "rules"
action = "block"
[moderation.words.words]
rude = "{words}"
[scenario.chat]
moderate_answer = ["words"]
"""
KEYS = """
[fleet]
orphan_grace_s = 1.0
[gateway]
api_keys = ["one-key"]
[tenant.other]
"""
KEY = {"Authorization": "Bearer one-key"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("gateways")
    async with cluster(folder, gateways=2, prefills=1, decodes=2, toml=KEYS) as made:
        yield made


async def killed_in_midstream(fleet: Cluster, path: str, body: dict[str, Any], events: int) -> Stream:
    """Begin at gateway 1, kill it after so many events; the stream as far as it came."""
    stream = Stream()
    reading = asyncio.create_task(begin(fleet.url(1), path, body, stream, headers=KEY))
    await until(lambda: len(stream.events) >= events or reading.done(), f"{events} events", 30)
    fleet.processes["gateway-1"].kill()
    await reading
    await fleet.processes["gateway-1"].ended()
    return stream


async def back(fleet: Cluster) -> None:
    await fleet.start(Role.GATEWAY, "gateway-1")
    await fleet.ready(1)


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_goes_on_where_its_connection_broke_as_if_nothing_had_been(fleet: Cluster, form: str) -> None:
    path, body = FORMS[form]
    whole = await begin(fleet.url(2), path, body, Stream(), headers=KEY)
    assert whole.complete
    stream = Stream()
    reading = asyncio.create_task(begin(fleet.url(1), path, body, stream, headers=KEY))
    await until(lambda: len(stream.events) >= 6, "some events", 30)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    came = len(stream.events)
    await go_on(fleet.url(2), stream, headers=KEY)
    assert came < len(stream.events)
    assert stream.said() == whole.said()
    assert len(set(stream.ids)) == len(stream.ids), "no event came twice"


@pytest.mark.parametrize(
    "form", [form if form in KILLED else pytest.param(form, marks=pytest.mark.long) for form in FORMS]
)
async def test_the_stream_goes_on_at_another_gateway_as_if_nothing_had_been(fleet: Cluster, form: str) -> None:
    path, body = FORMS[form]
    whole = await begin(fleet.url(2), path, body, Stream(), headers=KEY)
    assert whole.complete
    stream = await killed_in_midstream(fleet, path, body, events=5)
    came = len(stream.events)
    assert stream.broken
    assert not stream.complete
    await go_on(fleet.url(2), stream, headers=KEY)
    assert stream.status == 200
    assert came < len(stream.events)
    assert stream.said() == whole.said()
    assert len(set(stream.ids)) == len(stream.ids), "no event came twice"
    await back(fleet)
    await fleet.quiet()


async def test_a_stream_goes_on_from_whatever_event_was_seen_last(fleet: Cluster) -> None:
    path, body = FORMS["functions"]
    whole = await begin(fleet.url(1), path, body, Stream(), headers=KEY)
    for event_id in ("", whole.ids[0], whole.ids[1], whole.ids[7], whole.ids[-2], whole.ids[-1]):
        seen = next((n + 1 for n, (one, _) in enumerate(whole.events) if one == event_id and event_id), 0)
        stream = Stream(events=whole.events[:seen], stream_id=whole.stream_id)
        await go_on(fleet.url(2), stream, headers=KEY, after=event_id)
        assert stream.said() == whole.said(), event_id


async def test_a_stream_can_be_resumed_again_and_again(fleet: Cluster) -> None:
    path, body = "/v1/completions", {**FORMS["two prompts"][1], "max_tokens": 200}
    whole = await begin(fleet.url(2), path, body, Stream(), headers=KEY)
    stream = await killed_in_midstream(fleet, path, body, events=9)
    came = len(stream.events)
    reading = asyncio.create_task(go_on(fleet.url(2), stream, headers=KEY))
    await until(lambda: len(stream.events) >= came + 20, "more events", 30)
    fleet.processes["gateway-2"].kill()
    await reading
    assert not stream.complete
    for number in (1, 2):
        await fleet.start(Role.GATEWAY, f"gateway-{number}")
    await fleet.ready(1)
    await go_on(fleet.url(1), stream, headers=KEY)
    assert stream.said() == whole.said()
    await fleet.ready(2)
    await fleet.quiet()


async def test_nothing_is_computed_for_a_client_that_left_and_yet_it_finds_its_stream_again(fleet: Cluster) -> None:
    path, body = FORMS["chat"]
    whole = await begin(fleet.url(1), path, body, Stream(), headers=KEY)
    stream = Stream()
    reading = asyncio.create_task(begin(fleet.url(1), path, body, stream, headers=KEY))
    await until(lambda: len(stream.events) >= 8, "some events", 30)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await fleet.quiet()  # the gateway has noticed, and nothing is computed for nobody
    await go_on(fleet.url(1), stream, headers=KEY)
    assert stream.said() == whole.said()


async def test_a_repeated_post_with_the_last_event_goes_on_too(fleet: Cluster) -> None:
    path, body = FORMS["text"]
    whole = await begin(fleet.url(2), path, body, Stream(), headers=KEY)
    stream = await killed_in_midstream(fleet, path, body, events=6)
    await begin(fleet.url(2), path, body, stream, headers={**KEY, "Last-Event-ID": stream.last_event_id})
    assert stream.said() == whole.said()
    await back(fleet)


async def test_a_stream_that_is_taken_over_leaves_its_former_connection_with_an_error(fleet: Cluster) -> None:
    body = {**TEXT, "max_tokens": 300, "ignore_eos": True}
    whole = await begin(fleet.url(2), "/v1/completions", body, Stream(), headers=KEY)
    former = Stream()
    reading = asyncio.create_task(begin(fleet.url(1), "/v1/completions", body, former, headers=KEY))
    await until(lambda: len(former.events) >= 8, "some events", 30)
    latter = Stream(events=former.events.copy(), stream_id=former.stream_id)
    await go_on(fleet.url(2), latter, headers=KEY)
    await asyncio.wait_for(reading, 30)
    assert "resumed_elsewhere" in former.events[-1][1]
    assert latter.said() == whole.said()
    await fleet.quiet()


async def test_nobody_but_its_tenant_may_resume_a_stream_and_asking_does_not_disturb_it(fleet: Cluster) -> None:
    stream = Stream()
    body = {**TEXT, "max_tokens": 400, "ignore_eos": True}
    reading = asyncio.create_task(begin(fleet.url(1), "/v1/completions", body, stream, headers=KEY))
    await until(lambda: len(stream.events) >= 5, "some events", 30)
    key, secret = make("other", [], now=int(time.time()))
    async with open_register(fleet.redis.settings()) as register:
        await register.create(key)
    for headers, status in (({"Authorization": f"Bearer {secret}"}, 404), ({}, 401)):
        stranger = Stream(stream_id=stream.stream_id)
        await go_on(fleet.url(2), stranger, headers=headers, after="")
        assert (stranger.status, stranger.events) == (status, [])
    await reading
    assert stream.complete
    assert stream.status == 200


@pytest.mark.parametrize(
    ("stream_id", "after", "status"),
    [
        ("chatcmpl-" + "0" * 32, "", 404),
        ("nonsense", "", 404),
        ("chatcmpl-" + "0" * 32, "cmpl-" + "0" * 32 + ":3", 400),
        ("chatcmpl-" + "0" * 32, "chatcmpl-" + "0" * 32 + ":-3", 400),
        ("chatcmpl-" + "0" * 32, "x", 400),
    ],
)
async def test_what_cannot_be_resumed_is_said_so(fleet: Cluster, stream_id: str, after: str, status: int) -> None:
    headers = {**KEY, **({"Last-Event-ID": after} if after else {})}
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{fleet.url(2)}/v1/streams/{stream_id}", headers=headers)
        assert answer.status == status
        assert (await answer.json())["error"]["message"]


async def test_what_nobody_resumes_is_given_up_after_the_grace(fleet: Cluster) -> None:
    body = {**TEXT, "max_tokens": 1200, "ignore_eos": True}
    stream = await killed_in_midstream(fleet, "/v1/completions", body, events=5)
    assert await fleet.holders()
    await fleet.quiet(60)
    await back(fleet)
    await go_on(fleet.url(2), stream, headers=KEY)  # later, all that was made is there still
    assert stream.complete
    assert len(stream.ids) == 1201


@pytest.mark.long
async def test_moderated_streams_go_on_too(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("neversaid\n")
    toml = GUARD.format(words=words)
    async with cluster(tmp_path, gateways=2, prefills=1, decodes=1, toml=toml) as fleet:
        for form in ("functions", "two prompts"):
            path, body = FORMS[form]
            whole = await begin(fleet.url(2), path, body, Stream(), headers={})
            stream = await killed_in_midstream(fleet, path, body, events=5)
            await go_on(fleet.url(2), stream, headers={})
            said, expected = stream.said(), whole.said()
            assert _words(said) == _words(expected), form
            assert [one for one in said if _ends(one)] == [one for one in expected if _ends(one)]
            await back(fleet)
        path, body = FORMS["response"]
        stream = await killed_in_midstream(fleet, path, body, events=5)
        await go_on(fleet.url(2), stream, headers={})
        assert stream.status == 404, "what cannot be resumed exactly is refused"


def _ends(event: Any) -> bool:
    return event == "[DONE]" or any(one["finish_reason"] for one in event["choices"])


def _words(said: list[Any]) -> dict[int, str]:
    """The words and arguments of each choice."""
    words: dict[int, str] = {}
    for event in said:
        for choice in event["choices"] if isinstance(event, dict) else ():
            delta = choice.get("delta", {})
            calls = "".join(call["function"].get("arguments", "") for call in delta.get("tool_calls", ()))
            text = (choice.get("text") or delta.get("content") or "") + calls
            words[choice["index"]] = words.get(choice["index"], "") + text
    return words
