"""What a client may send, and how it is told that it may not: heads, bodies, methods, pages of other origins.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import base64
import gzip
import json

import pytest

from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import HELLO, parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ASKED = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 1}).encode()


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers]).encode() + b"\r\n\r\n"


def error_of(body: bytes) -> dict[str, str | None]:
    error: dict[str, str | None] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (get("/v1/models", f"X-Long: {'a' * 9000}"), "a line or header is longer than 8190 bytes"),
        (get("/" + "a" * 9000), "a line or header is longer than 8190 bytes"),
        (get("/v1/models", *(f"X-{n}: 1" for n in range(120))), "more than 100 headers"),
        (get("/v1/models", *(f"X-{n}: {'a' * 8000}" for n in range(20)))[:-2], "headers are larger than 65536 bytes"),
        (post(CHAT, ASKED, "Transfer-Encoding: chunked"), "not valid HTTP"),  # two lengths: a smuggler's
        (post(CHAT, ASKED, "Content-Length: 5"), "not valid HTTP"),
        (get("/v1/models", "Bad Header: 1"), "not valid HTTP"),
    ],
    ids=["header", "path", "headers", "head", "smuggled", "lengths", "name"],
)
async def test_a_head_beyond_its_bounds_is_told_so_in_the_usual_form(house: House, head: bytes, words: str) -> None:
    status, headers, body = parts(await raw(house, head))
    assert status == 400
    assert words in str(error_of(body)["message"])
    assert headers["x-request-id"]
    assert headers["content-type"].startswith("application/json")  # and `raw` has read to the end: it is closed


async def test_a_head_that_does_not_come_in_time_ends_its_connection_and_no_other(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgeheads"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-heads", head_timeout_s=0.5) as house:
        idle = asyncio.ensure_future(raw(house, get("/healthz"), until=b"ok\n"))
        assert b"200 OK" in await idle
        half, silent = await asyncio.gather(raw(house, get("/v1/models")[:-2]), raw(house, b""))
        status, _, body = parts(half)
        assert (status, error_of(body)["type"]) == (408, "invalid_request_error")
        assert silent == b""  # who has said nothing is told nothing
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(get("/healthz"))
        await reader.readuntil(b"ok\n")
        ended = asyncio.ensure_future(reader.read())
        for byte in get("/healthz", *(f"X-{n}: 1" for n in range(99))):  # one byte after the other buys no more time
            writer.write(bytes([byte]))
            await asyncio.wait({ended}, timeout=0.05)
            if ended.done():
                break
        assert b"408" in await ended
        writer.close()
        assert house.gateway._http._door.crowd.counts.heads_late == 3


async def test_an_idle_connection_is_closed_after_its_time(nats_server: NatsServer, redis_server: RedisServer) -> None:
    nats, redis = nats_server.settings(prefix="edgeidle"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-idle", keep_alive_s=0.3) as house:
        assert b"ok" in await raw(house, get("/healthz"))  # read to the end: the server closes
        await house.until(lambda: house.gateway._http.connections == 0, "no connection")


async def test_more_requests_than_may_wait_on_one_connection_end_it(house: House) -> None:
    house.fleet.may_speak.clear()
    asked = post(CHAT, ASKED).replace(b"Connection: close\r\n", b"")
    answer = asyncio.ensure_future(raw(house, asked + get("/healthz") * 20))
    await house.until(lambda: house.gateway._http._door.crowd.counts.pipelines_cut > 0, "the cut")
    assert await answer == b""
    house.fleet.may_speak.set()
    few = await raw(house, get("/healthz") * 3 + get("/healthz", "Connection: close"))
    assert few.count(b"200 OK") == 4


# ---- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "param"),
    [
        ("Content-Encoding: gzip", "content-encoding"),
        ("Content-Encoding: br", "content-encoding"),
        ("Content-Type: application/json; charset=latin-1", "content-type"),
        ("Content-Type: application/json; charset=utf-16", "content-type"),
        ("Content-Type: text/plain\r\nOrigin: https://evil.example", "content-type"),
        ("Expect: something-else", "expect"),
    ],
)
async def test_31_forms_that_would_be_misread_are_refused_by_name(house: House, header: str, param: str) -> None:
    body = gzip.compress(ASKED) if "gzip" in header else ASKED
    status, _, answer = parts(await raw(house, post(CHAT, body, header)))
    assert (status, error_of(answer)["param"]) == (400, param)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: application/json;charset=UTF-8",
        "Content-Type: application/json; charset=utf8",
        "Content-Type: application/x-www-form-urlencoded",  # `curl -d` without a header
        "Content-Encoding: identity",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",  # curl --http2
        "X-Stainless-Lang: python\r\nOpenAI-Organization: o\r\nOpenAI-Project: p",
    ],
)
async def test_31_forms_that_clients_send_are_taken(house: House, header: str) -> None:
    assert parts(await raw(house, post(CHAT, ASKED, header)))[0] == 200


async def test_31_http_1_0_is_answered_and_closed(house: House) -> None:
    status, headers, body = parts(
        await raw(house, post(CHAT, ASKED, version="1.0").replace(b"Connection: close", b"A: b"))
    )
    assert status == 200
    assert "transfer-encoding" not in headers
    assert json.loads(body)["choices"]
    streamed = ASKED.replace(b"{", b'{"stream":true,', 1)
    status, headers, body = parts(await raw(house, post(CHAT, streamed, version="1.0")))
    assert "transfer-encoding" not in headers
    assert body.endswith(b"data: [DONE]\n\n")


async def test_31_a_large_image_is_answered_by_name_and_not_by_its_size(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgeimage"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-image") as house:
        picture = base64.b64encode(bytes(10_000_000)).decode()
        content = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        ]
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": content}]}).encode()
        status, _, answer = parts(await raw(house, post(CHAT, body)))
        assert status == 400
        error = error_of(answer)
        assert str(error["param"]).startswith("messages[0].content")
        assert len(answer) < 2000  # the picture is not quoted


async def test_more_messages_than_are_taken_and_longer_prompts_are_told_so(house: House) -> None:
    many = json.dumps({"model": "chat", "messages": HELLO * 10_001}).encode()
    status, _, answer = parts(await raw(house, post(CHAT, many)))
    assert (status, error_of(answer)["param"]) == (400, "messages")
    long = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x" * 100_000}]}).encode()
    status, _, answer = parts(await raw(house, post(CHAT, long)))
    assert (status, error_of(answer)["code"]) == (400, "context_length_exceeded")


async def test_a_body_that_is_too_slow_is_given_up_and_its_place_is_free_again(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgeslow"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-slow", body_timeout_s=0.4) as house:
        status, headers, answer = parts(await raw(house, post(CHAT, ASKED)[:-5]))
        assert (status, error_of(answer)["code"]) == (408, "request_timeout")
        assert headers["connection"] == "close"
        await house.empty()
        assert parts(await raw(house, post(CHAT, ASKED)))[0] == 200


async def test_a_rate_below_the_least_is_given_up_before_the_whole_time_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.http.bodies.GRACE_S", 0.3)
    large = post(CHAT, ASKED + b" " * 100_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(large[:-90_000])  # some 10 kB, at 16 kB a second: less than a second more
    async with asyncio.timeout(10):
        assert b"408" in await reader.readuntil(b"\r\n")
    writer.close()


async def test_29_bodies_are_bounded_together_and_those_that_fit_are_still_answered(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgetotal"), redis_server.settings()
    bounds = {"max_body_bytes": 400_000, "max_body_total": 1_000_000, "max_streams": 64}
    async with open_house(nats, redis, instance="gateway-total", **bounds) as house:
        bodies = house.gateway._http._bodies
        held = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(post(CHAT, ASKED + b" " * 390_000)[:-100_000])
            held.append((reader, writer))
        await house.until(lambda: bodies.held > 850_000, "three bodies are being read")
        status, headers, answer = parts(await raw(house, post(CHAT, ASKED + b" " * 300_000)))
        assert (status, error_of(answer)["code"]) == (429, "server_overloaded")
        assert headers["retry-after"] == "1"
        assert parts(await raw(house, post(CHAT, ASKED)))[0] == 200
        for _, writer in held:
            writer.close()
        await house.until(lambda: bodies.held == 0 and bodies.slow == 0, "nothing is held")


async def test_bodies_that_dribble_in_take_no_more_than_half_of_the_places(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgehalf"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-half", max_streams=8) as house:
        links = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(20)]
        for _, writer in links:
            writer.write(post(CHAT, ASKED)[:-5])
        await house.until(lambda: house.gateway._http._bodies.slow == 4, "half of the places are taken")
        assert parts(await raw(house, post(CHAT, ASKED)))[0] == 200
        for _, writer in links:
            writer.close()


# ---- methods and pages of other origins ------------------------------------------------------------------------------


async def test_31_options_says_what_may_be_asked(house: House) -> None:
    status, headers, body = parts(await raw(house, get(CHAT, "Connection: close", method="OPTIONS")))
    assert (status, headers["allow"], body) == (204, "POST, OPTIONS", b"")
    assert parts(await raw(house, get("*", "Connection: close", method="OPTIONS")))[0] == 204
    assert parts(await raw(house, get("/nowhere", "Connection: close", method="OPTIONS")))[0] == 404
    status, headers, _ = parts(await raw(house, get(CHAT, "Connection: close", method="DELETE")))
    assert (status, headers["allow"]) == (405, "POST, OPTIONS")


async def test_31_cors_is_not_spoken_unless_it_is_configured(house: House) -> None:
    asked = get(
        CHAT, "Origin: https://a.example", "Access-Control-Request-Method: POST", "Connection: close", method="OPTIONS"
    )
    _, headers, _ = parts(await raw(house, asked))
    assert not [name for name in headers if name.startswith("access-control")]


async def test_31_a_page_of_an_allowed_origin_may_call_and_read_and_no_other(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="edgecors"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-cors", cors_origins=("https://app.example",)) as house:
        page, stranger = "Origin: https://app.example", "Origin: https://evil.example"
        preflight = (
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization, x-stainless-os",
        )
        status, headers, _ = parts(await raw(house, get(CHAT, page, *preflight, "Connection: close", method="OPTIONS")))
        assert status == 204
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in headers["access-control-allow-methods"]
        assert headers["access-control-allow-headers"] == "authorization, x-stainless-os"
        assert "access-control-allow-credentials" not in headers
        _, headers, _ = parts(await raw(house, get(CHAT, stranger, *preflight, "Connection: close", method="OPTIONS")))
        assert "access-control-allow-origin" not in headers
        for body in (ASKED, ASKED.replace(b"{", b'{"stream":true,', 1), b"{"):  # whole, streamed, refused
            _, headers, _ = parts(await raw(house, post(CHAT, body, page)))
            assert headers["access-control-allow-origin"] == "https://app.example"
            assert "x-ratelimit-remaining-tokens" in headers["access-control-expose-headers"]
            assert headers["vary"] == "origin"
            _, headers, _ = parts(await raw(house, post(CHAT, body, stranger)))
            assert "access-control-allow-origin" not in headers
        assert await house.reload(cors_origins=("*",)) == []
        _, headers, _ = parts(await raw(house, post(CHAT, ASKED, stranger)))
        assert headers["access-control-allow-origin"] == "*"
