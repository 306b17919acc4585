"""TLS: streams over it, a certificate changed under them, clients without the right one. On uvloop."""

import asyncio
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from services.gateway.http.tls import open_tls
from shared.config import GatewaySettings
from shared.errors import ConfigError
from tests.contract.gateway.certificates import Authority
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.loops import on_uvloop
from tests.contract.gateway.wire import HELLO, TEXT
from tests.servers import NatsServer, RedisServer

ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def trusting(authority: Authority, *own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own:
        context.load_cert_chain(*own)
    return context


def client_of(house: House, context: ssl.SSLContext) -> AsyncOpenAI:
    base_url = f"https://127.0.0.1:{house.port}/v1"
    return AsyncOpenAI(
        base_url=base_url, api_key="any", max_retries=0, timeout=10, http_client=DefaultAsyncHttpxClient(verify=context)
    )


async def name_of(house: House, context: ssl.SSLContext) -> str:
    """Who the gateway says it is to a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=context)
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return str(subject[0][0][1])


@on_uvloop
async def test_streams_go_over_tls_and_live_through_a_new_certificate(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    (cert, key), (next_cert, next_key) = authority.sign("first"), authority.sign("second")
    settings = {"tls_cert": str(cert), "tls_key": str(key)}
    nats, redis = nats_server.settings(prefix="tls"), redis_server.settings()
    async with (
        open_house(nats, redis, instance="gateway-tls", **settings) as house,
        client_of(house, trusting(authority)) as client,
    ):
        assert await name_of(house, trusting(authority)) == "first"
        house.fleet.may_speak.clear()
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        shutil.copy(next_cert, cert)  # renewed in place, as such tools do
        shutil.copy(next_key, key)
        assert await house.reload() == []
        assert await name_of(house, trusting(authority)) == "second"
        house.fleet.may_speak.set()
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT
        whole = await client.chat.completions.create(model="chat", messages=HELLO)
        assert whole.choices[0].message.content == TEXT


@on_uvloop
async def test_a_certificate_that_cannot_be_used_is_refused_and_the_old_one_stays(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("first")
    _, strange = authority.sign("second")
    nats, redis = nats_server.settings(prefix="tlsbad"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-tls", tls_cert=str(cert), tls_key=str(key)) as house:
        with pytest.raises(ConfigError, match=r"tls_key .*second.key cannot be used"):
            await house.reload(tls_key=str(strange), cors_origins=("*",))
        assert await name_of(house, trusting(authority)) == "first"
        assert house.gateway._http._terms.settings.cors_origins == ()  # all of it, or nothing


@on_uvloop
async def test_what_is_not_tls_or_too_old_is_closed_and_costs_no_place(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("gateway")
    settings = {"tls_cert": str(cert), "tls_key": str(key), "head_timeout_s": 1.0}
    nats, redis = nats_server.settings(prefix="tlsold"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-tls", **settings) as house:
        crowd = house.gateway._http._door.crowd
        old = trusting(authority)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", house.port, ssl=old)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(ASKED)
        assert b"200" not in await _rest(reader)
        writer.close()
        silent = socket.create_connection(("127.0.0.1", house.port))  # the handshake never comes
        await house.until(lambda: crowd.counts.handshakes_failed == 3, "three handshakes that failed")
        silent.close()
        await house.until(lambda: crowd.size == 0, "no place is taken")


@on_uvloop
async def test_clients_must_show_a_certificate_where_that_is_asked(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    authority, strange = Authority(tmp_path), Authority(tmp_path, "strange")
    cert, key = authority.sign("gateway")
    settings = {"tls_cert": str(cert), "tls_key": str(key), "tls_client_ca": str(authority.file)}
    nats, redis = nats_server.settings(prefix="tlsmutual"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-tls", **settings) as house:
        async with client_of(house, trusting(authority, *authority.sign("client"))) as client:
            assert (await client.models.list()).data
        for context in (trusting(authority), trusting(authority, *strange.sign("other"))):
            assert b"200" not in await ask(house, context)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).sign("gateway", password=b"secret")
    with pytest.raises(ConfigError, match="the key is encrypted"):
        open_tls(GatewaySettings(tls_cert=str(cert), tls_key=str(key)))


@pytest.mark.parametrize("missing", ["tls_cert", "tls_client_ca"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    cert, key = Authority(tmp_path).sign("gateway")
    settings = {"tls_cert": str(cert), "tls_key": str(key), missing: str(tmp_path / "nowhere.pem")}
    with pytest.raises(ConfigError, match=rf"{missing} .*nowhere.pem.* cannot be used: No such file"):
        open_tls(GatewaySettings(**settings))  # type: ignore[arg-type]


async def ask(house: House, context: ssl.SSLContext) -> bytes:
    """Connect and ask; nothing where that was refused."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=context)
        writer.write(ASKED)
        return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
