"""What those who run a gateway rely on: the access log, reloads, the drain, a port shared with other gateways.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from shared.errors import ConfigError, LinkLost
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw
from tests.servers import NatsServer, RedisServer

CHAT = "/v1/chat/completions"
ASKED = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 2, "stream": True}).encode()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers]).encode() + b"\r\n\r\n"


@asynccontextmanager
async def opened(
    nats_server: NatsServer, redis_server: RedisServer, name: str, **settings: object
) -> AsyncIterator[tuple[House, AsyncOpenAI]]:
    nats, redis = nats_server.settings(prefix=name), redis_server.settings()
    async with (
        open_house(nats, redis, instance=f"gateway-{name}", **settings) as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as client,
    ):
        yield house, client


# ---- the access log --------------------------------------------------------------------------------------------------


class Log:
    """An access log in a file."""

    def __init__(self, house: House, file: Path) -> None:
        self._house, self._file = house, file

    async def entries(self, least: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []
            return len(found) >= least

        await self._house.until(enough, f"{least} entries")
        return found


async def test_each_request_leaves_one_entry_without_prompt_and_without_key(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    keys = ("sk-very-secret",)
    async with opened(nats_server, redis_server, "accesslog", access_log=str(file), api_keys=keys) as (house, _):
        key, agent = "Authorization: Bearer sk-very-secret", "User-Agent: curl\u202e\t/8" + "x" * 500
        await raw(house, post(CHAT, ASKED, key, agent, "X-Request-Id: mine-1"))
        await raw(house, post(CHAT, ASKED.replace(b"chat", b"no\\nbody", 1), key))
        await raw(house, post(CHAT, ASKED))
        await raw(house, get("/healthz"))  # a probe that goes well is no entry
        await raw(house, get("/wp-admin?api_key=hidden"))
        streamed, unknown, nobody, stray = await Log(house, file).entries(4)
        assert (streamed["method"], streamed["route"], streamed["status"], streamed["request"]) == (
            *("POST", CHAT, 200),
            "mine-1",
        )
        assert (streamed["tenant"], streamed["scenario"], streamed["model"]) == ("default", "chat", "chat")
        assert (streamed["tokens_in"], streamed["tokens_out"], streamed["stream"]) == (24, 2, True)
        assert 0 <= streamed["ttft_ms"] <= streamed["duration_ms"]
        assert streamed["client"] == "127.0.0.1"
        assert streamed["agent"] == "curl??/8" + "x" * 120
        assert (unknown["status"], unknown["error"], unknown["model"]) == (404, "model_not_found", "no?body")
        assert (nobody["status"], nobody["error"]) == (401, "invalid_api_key")
        assert "tenant" not in nobody
        assert (stray["route"], stray["status"]) == ("other", 404)
        for secret in ("sk-very-secret", "hello", "Once", "hidden", "\u202e"):
            assert secret not in file.read_text()


async def test_a_client_that_leaves_is_in_the_log_with_what_it_got(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    async with opened(nats_server, redis_server, "accessgone", access_log=str(file)) as (house, client):
        house.fleet.silent_at.add((0, 3))
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content == " a":
                break
        await stream.close()
        (entry,) = await Log(house, file).entries(1)
        assert (entry["status"], entry["error"], entry["tokens_out"]) == (499, "cancelled", 3)


async def test_a_log_that_was_moved_away_is_begun_anew_at_a_reload(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    async with opened(nats_server, redis_server, "accessmoved", access_log=str(file)) as (house, client):
        await client.models.list()
        await Log(house, file).entries(1)
        file.rename(tmp_path / "access.log.1")
        await client.models.list()
        await house.reload()
        await client.models.list()
        assert len(await Log(house, file).entries(1)) == 1
        assert len((tmp_path / "access.log.1").read_text().splitlines()) == 2
        with pytest.raises(ConfigError, match="access_log: /nowhere/log cannot be written"):
            await house.reload(access_log="/nowhere/log")
        house.found[0] = house.reloading.config
        assert await house.reload(access_log="off") == []
        await client.models.list()
        await house.reload(access_log=str(file))
        assert len(file.read_text().splitlines()) == 1


async def test_the_access_log_is_among_the_other_logs_unless_told_otherwise(
    nats_server: NatsServer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "baton.access")
    async with opened(nats_server, redis_server, "accesson") as (_, client):
        await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=2)
    (record,) = [record for record in caplog.records if record.name == "baton.access"]
    assert (record.__dict__["status"], record.__dict__["tokens_out"], record.getMessage()) == (200, 2, "request")


# ---- reloads ---------------------------------------------------------------------------------------------------------


async def test_34_a_reload_changes_bounds_for_the_next_request_and_keeps_streams(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    async with opened(nats_server, redis_server, "reloaded") as (house, client):
        house.fleet.may_speak.clear()
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        assert await house.reload(max_body_bytes=2000, port=1, max_streams=7) == ["gateway.port", "gateway.max_streams"]
        assert parts(await raw(house, post(CHAT, ASKED + b" " * 2000)))[0] == 413
        house.fleet.may_speak.set()
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT


async def test_a_reload_that_does_not_fit_the_machine_changes_nothing(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    async with opened(nats_server, redis_server, "reloadfiles") as (house, _):
        before = house.gateway._http._terms.settings
        with pytest.raises(ConfigError, match=r"gateway.max_connections is 9+, but this process may open \d+ files"):
            await house.reload(max_connections=999_999_999, max_body_bytes=5000)
        assert house.gateway._http._terms.settings == before


# ---- the drain -------------------------------------------------------------------------------------------------------


async def test_34_a_drain_refuses_closes_idle_connections_and_cuts_what_overstays_with_an_error(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    async with opened(nats_server, redis_server, "drained") as (house, client):
        house.fleet.silent_at.add((0, 3))  # it will never end by itself
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        got = []
        idle, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(get("/healthz").replace(b"Connection: close\r\n", b""))
        await idle.readuntil(b"ok\n")
        house.stopping.ask("the test wants it")
        async with asyncio.timeout(5):
            assert await idle.read() == b""  # closed at once
        writer.close()
        status, headers, body = parts(await raw(house, post(CHAT, ASKED).replace(b"Connection: close\r\n", b"")))
        assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
        assert (headers["connection"], headers["x-baton-reason"]) == ("close", "draining")
        assert 1 <= int(headers["retry-after"]) < 60
        assert parts(await raw(house, get("/v1/models")))[0] == 503
        assert parts(await raw(house, get("/readyz")))[0] == 503
        assert parts(await raw(house, get("/healthz")))[0] == 200
        with pytest.raises(openai.APIError, match="this gateway has stopped"):
            got.extend([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert await house.life == 0  # to cut after the time is in order


async def test_34_a_second_signal_stops_at_once_and_still_tells_the_streams(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="drainfast"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-fast") as house:
        house.ends_with = 1
        house.fleet.silent_at.add((0, 1))
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(post(CHAT, ASKED))
        await reader.readuntil(b"Once")
        house.stopping.signalled("SIGTERM")
        await house.until(lambda: house.gateway._desk.draining, "the drain")
        house.stopping.signalled("SIGTERM")
        assert await house.life == 1
        rest = await reader.read()
        assert b'"code":"draining"' in rest
        assert b"[DONE]" not in rest
        writer.close()


# ---- one port --------------------------------------------------------------------------------------------------------


async def test_two_gateways_share_a_port_and_when_one_leaves_the_other_serves_on(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="shared"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-a", reuse_port=True) as first:
        async with open_house(nats, redis, instance="gateway-b", reuse_port=True, port=first.port) as second:
            assert second.port == first.port
            for _ in range(40):
                assert parts(await raw(first, get("/v1/models")))[0] == 200
            served = [house.gateway._http._door.crowd.counts.connections for house in (first, second)]
            assert sum(served) >= 40
            assert all(served)
        for _ in range(20):
            assert parts(await raw(first, get("/v1/models")))[0] == 200


async def test_a_shared_port_is_not_shared_with_another_program(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nServer: somebody\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    from services.gateway.http.neighbours import check_neighbours

    server = await asyncio.start_server(stranger, "127.0.0.1", 0, reuse_port=True)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(LinkLost, match=f"another program listens on 127.0.0.1:{port}"):
        await check_neighbours("127.0.0.1", port, tls=False)
    server.close()
    await server.wait_closed()
    await check_neighbours("127.0.0.1", port, tls=False)  # nobody


async def test_a_port_that_is_taken_is_refused_clearly(
    nats_server: NatsServer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(nats_server, redis_server, "taken") as (house, _):
        nats, redis = nats_server.settings(prefix="taken2"), redis_server.settings()
        with pytest.raises(AssertionError, match="the gateway stopped"):
            async with open_house(nats, redis, instance="gateway-late", port=house.port):
                pass
        assert f"cannot listen on 127.0.0.1:{house.port}: Address already in use; does something else" in caplog.text
