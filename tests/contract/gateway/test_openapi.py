"""The OpenAPI document, and schemathesis against a live gateway: no answer that the document does not describe.

The scripted fleet answers every good request, so a 5xx would be a fault of the gateway's own.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio

from services.gateway.http.openapi import ROUTES, document
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import HELLO, parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "secret-key"
SIGNED = f"Authorization: Bearer {KEY}"
EVERYWHERE = "#/components/schemas/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    nats, redis = nats_server.settings(prefix="openapi"), redis_server.settings()
    async with open_house(nats, redis, max_streams=4096, api_keys=(KEY,)) as made:
        yield made
        await made.empty()


async def get(house: House, path: str) -> tuple[int, dict[str, str], bytes]:
    return parts(await raw(house, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()))


async def test_the_document_and_its_page_are_served_to_anyone(house: House) -> None:
    status, headers, body = await get(house, "/openapi.json")
    assert (status, headers["content-type"].split(";")[0]) == (200, "application/json")
    assert json.loads(body) == document()
    status, headers, body = await get(house, "/docs")
    assert status == 200
    assert b"/v1/responses" in body
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert b"src=" not in body  # the page loads nothing from anywhere


async def test_every_route_of_the_gateway_is_described_and_no_other(house: House) -> None:
    routes = house.gateway._http._routes
    assert {path for _, path in ROUTES} == {*routes._known, "/v1/models/{model}", "/v1/streams/{stream}"}
    assert all(method.upper() in routes.find(path).methods for method, path in ROUTES)


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    """Of one component; what the document does not name is forbidden, so that nothing is sent undescribed."""
    made = document()
    for schema in made["components"]["schemas"].values():
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
    return jsonschema_rs.Draft202012Validator({"$ref": EVERYWHERE + name, "components": made["components"]})


CHAT: dict[str, Any] = {"messages": HELLO}
WHOLE: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", CHAT, "ChatCompletion"),
    ("/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2}, "ChatCompletion"),
    ("/v1/completions", {"prompt": ["a", "b"], "echo": True}, "Completion"),
    ("/v1/completions", {"prompt": "a", "logprobs": 1, "best_of": 2}, "Completion"),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 2}, "Response"),
    ("/v1/responses", {"input": "hello", "include": ["message.output_text.logprobs"], "top_logprobs": 1}, "Response"),
    ("/tokenize", {"prompt": "a"}, "Tokens"),
    ("/detokenize", {"tokens": [97]}, "Words"),
    ("/v1/chat/completions", {"messages": 5}, "Error"),
    ("/v1/nothing", {}, "Error"),
]


@pytest.mark.parametrize(("path", "fields", "schema"), WHOLE)
async def test_answers_have_what_the_document_says_and_nothing_else(
    house: House, path: str, fields: dict[str, Any], schema: str
) -> None:
    body = json.dumps({"model": "chat", **fields}).encode()
    _, _, answer = parts(await raw(house, post(path, body, SIGNED)))
    validator(schema).validate(json.loads(answer))


@pytest.mark.parametrize(
    ("path", "fields", "schema"),
    [
        ("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}, "ChatCompletionChunk"),
        ("/v1/chat/completions", {**CHAT, "stream_options": {"continuous_usage_stats": True}}, "ChatCompletionChunk"),
        ("/v1/chat/completions", {**CHAT, "logprobs": True}, "ChatCompletionChunk"),
        ("/v1/completions", {"prompt": "a", "logprobs": 1, "stream_options": {"include_usage": True}}, "Completion"),
    ],
)
async def test_events_have_what_the_document_says_and_nothing_else(
    house: House, path: str, fields: dict[str, Any], schema: str
) -> None:
    body = json.dumps({"model": "chat", "stream": True, **fields}).encode()
    _, _, answer = parts(await raw(house, post(path, body, SIGNED, version="1.0")))
    events = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")]
    assert len(events) > 2
    for event in events:
        validator(schema).validate(json.loads(event))


async def schemathesis(house: House, folder: Path, *options: str) -> None:
    """Run its command as a user would; it ends with 0 when it finds nothing."""
    hooks = Path(__file__).with_name("schemathesis_hooks.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{house.url}/openapi.json", "--seed", "20261101"),
        *(
            "-H",
            SIGNED,
            "-H",
            "x-baton-timeout: 3600",
            "--request-timeout",
            "30",
            "--no-color",
            "--continue-on-failure",
        ),
        # rules between fields, such as top_logprobs without logprobs, are beyond JSON Schema: they are a clear 400
        *("--exclude-checks", "positive_data_acceptance,negative_data_rejection", "--warnings", "off", *options),
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks), "PYTHONPATH": str(hooks.parent)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()[-20_000:]
    await house.empty()


CHAT_HEADER = ("-H", "x-baton-scenario: chat")
"""So that requests with any model reach the workers."""


@pytest.mark.timeout(400)
async def test_schemathesis_finds_nothing(house: House, tmp_path: Path) -> None:
    await schemathesis(house, tmp_path, "--max-examples", "8", "--phases", "coverage,fuzzing", *CHAT_HEADER)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("header", [(), CHAT_HEADER])
async def test_schemathesis_finds_nothing_in_many_more_attempts(
    house: House, tmp_path: Path, header: tuple[str, ...]
) -> None:
    await schemathesis(house, tmp_path, "--max-examples", "300", *header)
