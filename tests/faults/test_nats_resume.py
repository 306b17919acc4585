"""F13 for clients of NATS: their gateway is killed, they publish where they stopped, another gateway goes on."""

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.messages import Role
from tests.faults.cluster import Cluster, cluster
from tests.waiting import until

ASKED = {"v": 1, "prompt": "Once", "max_tokens": 120, "seed": 3, "ignore_eos": True, "stream": True, "logprobs": 1}


class Heard:
    """What came on an inbox."""

    def __init__(self) -> None:
        self.maps: list[dict[str, Any]] = []

    async def take(self, message: Msg) -> None:
        if message.data:
            self.maps.append(msgpack.unpackb(message.data))

    @property
    def ended(self) -> bool:
        return any("done" in one or "error" in one for one in self.maps)

    @property
    def pieces(self) -> list[dict[str, Any]]:
        return [one for one in self.maps if one.get("text")]

    def text(self, choice: int = 0) -> str:
        return "".join(one["text"] for one in self.pieces if one.get("choice", 0) == choice)

    def logprobs(self, choice: int = 0) -> list[Any]:
        return [entry for one in self.pieces if one.get("choice", 0) == choice for entry in one["logprobs"]]

    def after(self, choices: int) -> str:
        """How far it came, in each choice."""
        last = {one.get("choice", 0): one["at"] for one in self.pieces}
        return ",".join(last.get(choice, "-") for choice in range(choices))


async def asked(client: Client, heard: Heard, fields: dict[str, Any]) -> None:
    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=heard.take)
    await client.publish("baton.chat.requests", msgpack.packb(fields), reply=inbox)


async def test_a_stream_over_nats_goes_on_at_another_gateway(tmp_path: Path) -> None:
    async with cluster(tmp_path, gateways=2, prefills=1, decodes=2) as fleet:
        settings = fleet.nats.settings()
        client = await nats.connect(settings.url, user=settings.user, password=settings.password)
        try:
            await both_ways(fleet, client, 2)
            await what_is_wrong_is_said(client)
        finally:
            await client.close()
        await fleet.quiet()


async def both_ways(fleet: Cluster, client: Client, choices: int) -> None:
    fields = {**ASKED, "n": choices}
    whole, heard = Heard(), Heard()
    await asked(client, whole, fields)
    await until(lambda: whole.ended, "the reference ended", 60)
    await asked(client, heard, fields)
    await until(lambda: len(heard.pieces) > 20, "some pieces", 60)
    holder = await gateway_of(fleet)
    fleet.processes[holder].kill()
    await fleet.processes[holder].ended()
    await asyncio.sleep(0.3)
    assert not heard.ended
    stream, after = heard.maps[0]["id"], heard.after(choices)
    await asked(client, heard, {"v": 1, "resume": stream, "after": after})
    await until(lambda: heard.ended, "the stream ended", 60)
    for choice in range(choices):
        assert heard.text(choice) == whole.text(choice)
        assert [one["logprob"] for one in heard.logprobs(choice)] == [one["logprob"] for one in whole.logprobs(choice)]
    last, expected = heard.maps[-1], whole.maps[-1]
    assert {**last, "id": ""} == {**expected, "id": ""}
    await fleet.start(Role.GATEWAY, holder)
    await fleet.until_ready(holder)


async def gateway_of(fleet: Cluster) -> str:
    """Which one has the stream."""
    held = {name: (await fleet.metrics(name))["baton_gateway_in_flight"] for name in ("gateway-1", "gateway-2")}
    return max(held, key=held.__getitem__)


async def what_is_wrong_is_said(client: Client) -> None:
    for fields in (
        {"resume": "nonsense"},
        {"resume": 5},
        {"resume": "cmpl-" + "0" * 32},
        {"resume": "cmpl-" + "0" * 32, "after": 3},
        {"resume": "cmpl-" + "0" * 32, "after": "x"},
        {"resume": "cmpl-" + "0" * 32, "max_tokens": 3},
    ):
        heard = Heard()
        await asked(client, heard, {"v": 1, **fields})
        await until(lambda heard=heard: heard.ended, f"an answer to {fields}", 30)
        assert heard.maps[-1]["error"]["message"]
