"""What /metrics says after requests good and bad, and that no client can make it grow."""

import asyncio
import json
import secrets

import pytest
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import Code
from tests.contract.gateway.house import WORDS, House, failed
from tests.contract.gateway.wire import HELLO, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "baton",
    "gen_ai_request_model": "chat",
    "gen_ai_response_model": "sim",
}
CHAT = {"scenario": "chat"}


async def scraped(house: House) -> bytes:
    status, _, body = parts(await raw(house, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    assert status == 200
    return body


async def value(house: House, name: str, labels: dict[str, str]) -> float:
    """One sample's value; 0 where there is none yet."""
    for family in text_string_to_metric_families((await scraped(house)).decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


class Grown:
    """How much a sample has grown since it was first looked at."""

    def __init__(self, house: House, name: str, labels: dict[str, str]) -> None:
        self.house, self.name, self.labels = house, name, labels
        self.before = 0.0

    async def look(self) -> "Grown":
        self.before = await value(self.house, self.name, self.labels)
        return self

    async def by(self) -> float:
        await self.house.empty()
        return round(await value(self.house, self.name, self.labels) - self.before, 6)


async def watch(house: House, name: str, labels: dict[str, str]) -> Grown:
    return await Grown(house, name, labels).look()


async def test_an_answer_is_counted_once_in_each_metric(house: House, client: AsyncOpenAI) -> None:
    duration = await watch(house, "gen_ai_server_request_duration_seconds_count", {**GEN_AI, "error_type": ""})
    first = await watch(house, "gen_ai_server_time_to_first_token_seconds_count", GEN_AI)
    each = await watch(house, "gen_ai_server_time_per_output_token_seconds_count", GEN_AI)
    output = await watch(house, "gen_ai_client_token_usage_sum", {**GEN_AI, "gen_ai_token_type": "output"})
    usage = await watch(house, "gen_ai_client_token_usage_count", {**GEN_AI, "gen_ai_token_type": "input"})
    queue = await watch(house, "baton_gateway_queue_seconds_count", CHAT)
    overhead = await watch(house, "baton_gateway_overhead_seconds_count", CHAT)
    attempts = await watch(house, "baton_gateway_attempts_per_request_sum", CHAT)
    spent = await watch(house, "baton_gateway_usage_tokens_total", {**CHAT, "tenant": "anonymous", "type": "output"})
    answer = await client.chat.completions.create(model="chat", messages=HELLO, n=2)
    assert answer.usage is not None
    for counted in (duration, first, each, usage, queue, overhead, attempts):
        assert await counted.by() == 1, counted.name
    assert await output.by() == await spent.by() == answer.usage.completion_tokens == 2 * len(WORDS)


async def test_attempts_per_request_and_failures_are_told_apart(house: House, client: AsyncOpenAI) -> None:
    attempts = await watch(house, "baton_gateway_attempts_per_request_sum", CHAT)
    good = await watch(house, "gen_ai_server_request_duration_seconds_count", {**GEN_AI, "error_type": ""})
    house.fleet.fails_at[(0, 3)] = failed(Code.ENGINE_FAILED, retryable=True)
    await client.chat.completions.create(model="chat", messages=HELLO)
    assert await attempts.by() == 2
    assert await good.by() == 1
    lost = {**GEN_AI, "error_type": "engine_failed"}
    bad = await watch(house, "gen_ai_server_request_duration_seconds_count", lost)
    house.fleet.fails_at[(0, 0)] = failed(Code.ENGINE_FAILED, retryable=False)
    with pytest.raises(Exception, match="as the test wants it"):
        await client.chat.completions.create(model="chat", messages=HELLO)
    assert await bad.by() == 1
    assert await good.by() == 1


async def test_a_request_that_is_refused_at_the_desk_has_a_duration_too(house: House, client: AsyncOpenAI) -> None:
    refused = {**GEN_AI, "error_type": "context_length_exceeded"}
    duration = await watch(house, "gen_ai_server_request_duration_seconds_count", refused)
    with pytest.raises(Exception, match="maximum context length"):
        await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=2**30)
    assert await duration.by() == 1


def hostile(number: int) -> list[bytes]:
    """Requests that carry a name of the client's own wherever there is room for one."""
    mark = f"evil{number}{secrets.token_hex(8)}"
    said = {"messages": HELLO, "max_tokens": 1, "user": mark, "metadata": {mark: mark}, "safety_identifier": mark}
    names = (f"Authorization: Bearer {mark}", f"x-request-id: {mark}", f"OpenAI-Organization: {mark}")
    return [
        post("/v1/chat/completions", json.dumps({"model": mark, **said}).encode(), *names),
        post("/v1/chat/completions", json.dumps({"model": "chat", **said}).encode(), *names),
        post("/v1/chat/completions", json.dumps({"model": f"chat/{mark}", **said}).encode(), *names),
        post("/v1/chat/completions", json.dumps({"model": "chat", mark: 1, **said}).encode(), *names),
        post("/v1/chat/completions", json.dumps({"model": "chat", **said}).encode(), f"x-baton-scenario: {mark}"),
        post(f"/{mark}", b"{}", *names),
        f"GET /v1/models/{mark} HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n".encode(),
        f"{mark.upper()} /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
        f"GET /v1/streams/{mark}?{mark}={mark} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    ]


async def test_what_clients_send_never_becomes_a_label(house: House) -> None:
    async def send(number: int) -> None:
        for request in hostile(number):
            await raw(house, request)

    await send(0)
    await house.empty()
    before = (await scraped(house)).count(b"\n")
    await asyncio.gather(*(send(number) for number in range(1, 8)))
    await house.empty()
    after = await scraped(house)
    assert b"evil" not in after.lower()
    assert after.count(b"\n") == before
