"""The gateway's NATS surface, as a direct client sees it: MessagePack maps on its own inbox."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from shared.errors import Code
from tests.contract.gateway.direct import replies_to
from tests.contract.gateway.house import WORDS, House, failed, open_house
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "".join(WORDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    settings = nats_server.settings(prefix="gatewaynats")
    async with open_house(settings, redis_server.settings(), max_streams=32, api_keys=("secret-key",)) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(one_house: House) -> AsyncIterator[House]:
    yield one_house
    one_house.fleet.calm()
    await one_house.empty()


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: House, nats_server: NatsServer) -> AsyncIterator[Client]:
    settings = nats_server.settings()
    made = await nats.connect(settings.url, user=settings.user, password=settings.password)
    yield made
    await made.close()


async def ask(house: House, client: Client, request: Any) -> list[dict[str, Any]]:
    """Send bytes, or a map with the key, and collect the replies up to the last one."""
    if isinstance(request, dict):
        request = msgpack.packb({"v": 1, "api_key": "secret-key", **request})
    return await replies_to(house, client, request)


async def test_a_stream_is_acknowledged_then_told_piece_by_piece_then_ended(house: House, client: Client) -> None:
    first, *pieces, last = await ask(house, client, {"prompt": "hello", "stream": True})
    assert (first["i"], first["text"]) == (0, "")
    assert [(piece["i"], piece["text"]) for piece in pieces] == list(enumerate(WORDS))
    assert last["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] == len(WORDS)
    assert last["usage"]["prompt_tokens"] == 1 + len("hello")


async def test_a_request_that_is_not_streamed_has_one_reply(house: House, client: Client) -> None:
    request = msgpack.packb({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "api_key": "secret-key"})
    reply = msgpack.unpackb((await client.request(house.subjects.requests("chat"), request, timeout=5)).data)
    assert (reply["text"], reply["finish_reason"], reply["done"]) == ("Once upon", "length", True)


async def test_a_whole_answer_that_no_message_holds_is_an_error_at_once(house: House, client: Client) -> None:
    house.fleet.words = lambda _request: ["x" * 300_000] * 5
    (reply,) = await ask(house, client, {"prompt": "hello"})
    assert reply["error"]["code"] == "request_too_large"
    assert "ask for a stream" in reply["error"]["message"]
    *pieces, last = await ask(house, client, {"prompt": "hello", "stream": True})
    assert sum(len(piece["text"]) for piece in pieces) == 1_500_000
    assert last["done"]


async def test_choices_say_which_they_are(house: House, client: Client) -> None:
    replies = await ask(house, client, {"prompt": "hello", "stream": True, "n": 2})
    for choice in (0, 1):
        mine = [piece["text"] for piece in replies[1:-1] if piece.get("choice", 0) == choice]
        assert "".join(mine) == TEXT
    assert replies[-1]["finish_reasons"] == ["stop", "stop"]


async def test_logprobs_come_with_their_text(house: House, client: Client) -> None:
    replies = await ask(house, client, {"prompt": "hello", "stream": True, "logprobs": 1})
    assert [piece["logprobs"][0]["token"] for piece in replies[1:-1]] == WORDS


async def test_a_failure_is_an_error_that_says_whether_to_come_again(house: House, client: Client) -> None:
    house.fleet.fails_at[0, 2] = failed(Code.ENGINE_FAILED, retryable=False)
    *_, last = await ask(house, client, {"prompt": "hello", "stream": True})
    assert last["error"]["code"] == "engine_failed"
    assert last["error"]["retryable"] is False


async def test_a_stream_survives_its_worker(house: House, client: Client) -> None:
    house.fleet.fails_at[0, 2] = failed(Code.WORKER_LOST, retryable=True)
    replies = await ask(house, client, {"prompt": "hello", "stream": True})
    assert "".join(piece["text"] for piece in replies[:-1]) == TEXT
    assert [piece["i"] for piece in replies[1:-1]] == list(range(len(WORDS)))


async def test_echo_and_best_of_are_served_here_too(house: House, client: Client) -> None:
    first, echo, *_, last = await ask(house, client, {"prompt": [104, 105], "stream": True, "echo": True})
    assert (first["text"], echo["text"], last["finish_reason"]) == ("", "hi", "stop")
    (whole,) = await ask(house, client, {"prompt": ["a", "b"], "echo": True, "max_tokens": 1})
    assert whole["texts"] == ["aOnce", "bOnce"]
    house.fleet.logprob = lambda request: float(request.sampling.choice)
    house.fleet.words = lambda request: [f"{request.sampling.choice}"]
    (best,) = await ask(house, client, {"prompt": "a", "best_of": 3, "n": 2})
    assert (best["texts"], best["finish_reasons"]) == (["2", "1"], ["stop", "stop"])
    assert best["usage"]["completion_tokens"] == 3
    assert "logprobs" not in best


async def test_usage_comes_with_every_piece_where_it_is_asked_for(house: House, client: Client) -> None:
    options = {"continuous_usage_stats": True}
    _, *pieces, last = await ask(house, client, {"prompt": "hello", "stream": True, "stream_options": options})
    assert [piece["usage"]["completion_tokens"] for piece in pieces] == list(range(1, len(WORDS) + 1))
    assert {piece["usage"]["prompt_tokens"] for piece in pieces} == {last["usage"]["prompt_tokens"]}


async def test_a_client_names_its_own_time(house: House, client: Client) -> None:
    house.fleet.may_speak.clear()
    (reply,) = await ask(house, client, {"prompt": "hello", "timeout": 0.2})
    assert reply["error"]["code"] == "timeout"


NONSENSE: list[bytes] = [
    b"",
    b"\xc1",
    b"not messagepack at all",
    msgpack.packb([1, 2]),
    msgpack.packb(5),
    msgpack.packb({1: 2}),
    msgpack.packb({b"prompt": "x"}),
    b"\x91" * 5000 + b"\x01",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff" + b"x" * 100,
    b"\x81\xa6prompt\xa2\xff\xfe",
    b"\x00" * 900_000,
]


@pytest.mark.parametrize("data", NONSENSE)
async def test_bad_bytes_get_an_error_reply_and_the_gateway_lives(house: House, client: Client, data: bytes) -> None:
    (reply,) = await ask(house, client, data)
    assert reply["error"]["code"] == "malformed_message"
    assert reply["error"]["message"]
    assert (await ask(house, client, {"prompt": "x", "max_tokens": 1}))[0]["text"] == WORDS[0]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "bad_request", "prompt"),
        ({"prompt": 5}, "bad_request", "prompt"),
        ({"prompt": b"bytes"}, "bad_request", "prompt"),
        ({"prompt": "x", "temperature": float("nan")}, "bad_request", "temperature"),
        ({"prompt": "x", "max_tokens": 2**62}, "bad_request", "max_tokens"),
        ({"prompt": "x", "tools": []}, "bad_request", "tools"),
        ({"prompt": "x", "v": 2}, "bad_request", "v"),
        ({"prompt": "x", "v": []}, "bad_request", "v"),
        ({"prompt": "x", "api_key": "wrong"}, "invalid_api_key", None),
        ({"prompt": "x", "api_key": None}, "bad_request", "api_key"),
        ({"prompt": "x" * 100_000}, "context_length_exceeded", "prompt"),
    ],
)
async def test_a_wrong_request_gets_an_error_that_names_the_parameter(
    house: House, client: Client, fields: dict[str, Any], code: str, param: str | None
) -> None:
    (reply,) = await ask(house, client, fields)
    assert (reply["error"]["code"], reply["error"].get("param")) == (code, param)


async def test_a_reply_subject_that_is_no_inbox_is_never_published_to(house: House, client: Client) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    targets = [house.subjects.control("p1"), "_INBOX_decode.abc.1", "_INBOX.a b", ""]
    for target in (house.subjects.control("p1"), "_INBOX_decode.abc.1"):
        await client.subscribe(target, cb=hear)
    await client.flush()
    before = house.gateway._nats.counts.no_inbox
    good = msgpack.packb({"prompt": "x", "max_tokens": 1, "api_key": "secret-key"})
    for target in [one for one in targets if " " not in one]:
        await client.publish(house.subjects.requests("chat"), good, reply=target)
    await house.until(lambda: house.gateway._nats.counts.no_inbox == before + 3, "three refusals")
    await house.empty()
    await client.flush()
    assert heard == []


async def test_http_asks_for_the_same_key(house: House) -> None:
    async def status(authorization: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    assert b" 200 " in await status("Authorization: Bearer secret-key\r\n")
    assert b" 200 " in await status("authorization:   bearer   secret-key  \r\n")
    for wrong in ("", "Authorization: Bearer nope\r\n", "Authorization: Basic secret-key\r\n"):
        answer = await status(wrong)
        assert b" 401 " in answer.split(b"\r\n")[0]
        assert b"WWW-Authenticate: Bearer" in answer or b"www-authenticate: Bearer" in answer
        assert b'"code":"invalid_api_key"' in answer
