"""Direct NATS clients that want no more, or are gone: what they asked for ends at once, everywhere."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from tests.contract.gateway.house import WORDS, House
from tests.servers import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"v": 1, "prompt": "hello", "stream": True}


@pytest_asyncio.fixture(loop_scope="module")
async def nats_client(house: House, nats_server: NatsServer) -> AsyncIterator[Client]:
    settings = nats_server.settings()
    made = await nats.connect(settings.url, user=settings.user, password=settings.password)
    yield made
    await made.close()


class Stream:
    """One request and what came of it."""

    def __init__(self, house: House, client: Client) -> None:
        self.house, self.client = house, client
        self.inbox = client.new_inbox()
        self.maps: list[dict[str, Any]] = []

    async def ask(self, **fields: Any) -> "Stream":
        async def keep(message: Any) -> None:
            self.maps.append(msgpack.unpackb(message.data))

        await self.client.subscribe(self.inbox, cb=keep)
        subject = self.house.subjects.requests("chat")
        await self.client.publish(subject, msgpack.packb(ASK | fields), reply=self.inbox)
        return self

    async def cancel(self, name: str) -> list[str]:
        """Ask the gateways to stop it; what the one that had it stopped."""
        subject = self.house.subjects.requests_cancel("chat")
        reply = await self.client.request(subject, msgpack.packb({"v": 1, "cancel": name}), timeout=5)
        stopped: list[str] = msgpack.unpackb(reply.data)["cancelled"]
        return stopped

    @property
    def ended(self) -> bool:
        return bool(self.maps) and ("done" in self.maps[-1] or "error" in self.maps[-1])


@pytest.mark.parametrize("phase", ["offered", "held", "with two choices"])
async def test_a_client_cancels_its_request_by_its_id(house: House, nats_client: Client, phase: str) -> None:
    (house.fleet.accepts if phase == "offered" else house.fleet.may_speak).clear()
    choices = 2 if phase == "with two choices" else 1
    stream = await Stream(house, nats_client).ask(n=choices)
    await house.until(lambda: bool(stream.maps) and len(house.fleet.requests) == choices, "the request is out")
    assert await stream.cancel(stream.maps[0]["id"]) == [stream.maps[0]["id"]]
    await house.until(lambda: stream.ended, "the stream ended")
    assert stream.maps[-1]["error"]["code"] == "cancelled"
    await house.until(lambda: len(house.fleet.cancels) == choices, "the workers were told")
    assert {one.request_id for one in house.fleet.cancels} == {one.request_id for one in house.fleet.requests}
    await house.empty()


async def test_a_request_that_is_not_streamed_is_cancelled_by_its_inbox(house: House, nats_client: Client) -> None:
    house.fleet.may_speak.clear()
    streams = [await Stream(house, nats_client).ask(stream=False) for _ in range(2)]
    await house.until(lambda: len(house.fleet.requests) == 2, "both are out")
    assert len(await streams[0].cancel(streams[0].inbox)) == 1
    await house.until(lambda: streams[0].ended, "the first ended")
    house.fleet.may_speak.set()
    await house.until(lambda: streams[1].ended, "the second ended")
    assert [streams[0].maps[-1]["error"]["code"], streams[1].maps[-1]["text"]] == ["cancelled", "".join(WORDS)]


async def test_what_nobody_has_is_not_answered_and_harms_nobody(house: House, nats_client: Client) -> None:
    subject = house.subjects.requests_cancel("chat")
    house.fleet.may_speak.clear()
    stream = await Stream(house, nats_client).ask()
    await house.until(lambda: bool(house.fleet.requests), "the request is out")
    for name in ("cmpl-0000", "_INBOX.other", stream.maps[0]["id"][:-1], "*", stream.inbox[:-1] + ">"):
        await nats_client.publish(subject, msgpack.packb({"cancel": name}), reply=nats_client.new_inbox())
    await nats_client.flush()
    for nonsense in (b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"cancel": 5}), msgpack.packb({"v": 9})):
        reply = msgpack.unpackb((await nats_client.request(subject, nonsense, timeout=5)).data)
        assert reply["error"]["code"] in ("malformed_message", "bad_request")
    house.fleet.may_speak.set()
    await house.until(lambda: stream.ended, "the stream ended")
    assert "".join(one.get("text", "") for one in stream.maps) == "".join(WORDS)


@pytest.mark.parametrize("phase", ["offered", "held", "with two choices"])
async def test_a_client_that_is_gone_is_noticed(house: House, nats_server: NatsServer, phase: str) -> None:
    settings = nats_server.settings()
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    (house.fleet.accepts if phase == "offered" else house.fleet.may_speak).clear()
    choices = 2 if phase == "with two choices" else 1
    stream = await Stream(house, client).ask(n=choices)
    await house.until(lambda: bool(stream.maps) and len(house.fleet.requests) == choices, "the request is out")
    before = house.gateway._nats.counts.gone
    await client.close()
    await house.until(lambda: house.gateway._nats.counts.gone == before + 1, "it was noticed")
    await house.until(lambda: len(house.fleet.cancels) >= choices, "the workers were told")
    await house.empty()


async def test_a_client_that_never_listened_is_noticed_with_the_first_map(house: House, nats_client: Client) -> None:
    house.fleet.may_speak.clear()
    before = house.gateway._nats.counts.gone
    deaf = Stream(house, nats_client)
    await nats_client.publish(house.subjects.requests("chat"), msgpack.packb(ASK), reply=deaf.inbox)
    await house.until(lambda: house.gateway._nats.counts.gone == before + 1, "it was noticed")
    await house.empty()


async def test_a_client_that_listens_to_a_silent_stream_is_left_in_peace(house: House, nats_client: Client) -> None:
    house.fleet.may_speak.clear()
    stream = await Stream(house, nats_client).ask()
    await house.until(lambda: len(stream.maps) >= 3, "signs of life", within_s=15)
    assert all(one["text"] == "" for one in stream.maps)
    assert not house.fleet.cancels
    house.fleet.may_speak.set()
    await house.until(lambda: stream.ended, "the stream ended")
    assert "".join(one.get("text", "") for one in stream.maps) == "".join(WORDS)
    assert len(house.gateway._nats._clients) == 0


async def test_nobody_but_nats_can_say_that_a_client_is_gone(house: House, nats_client: Client) -> None:
    house.fleet.may_speak.clear()
    stream = await Stream(house, nats_client).ask()
    await house.until(lambda: bool(stream.maps), "the request is out")
    (client,) = house.gateway._nats._clients._by_token.values()
    probes = house.gateway._nats._probes
    await nats_client.publish(f"{probes}.{client.token}", b"503")
    await nats_client.publish(f"{probes}.unknown", b"", headers={"Status": "503"})
    await nats_client.flush()
    await asyncio.sleep(0.1)
    assert client.stopped is None
    house.fleet.may_speak.set()
    await house.until(lambda: stream.ended, "the stream ended")
