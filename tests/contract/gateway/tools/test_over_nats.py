"""Calls of functions over NATS."""

import json
from typing import Any

import msgpack
import nats
import pytest

from tests.contract.gateway.direct import replies_to
from tests.contract.gateway.house import House
from tests.contract.gateway.tools.asking import BEFORE, CALLS, ONE, OTHER, TIME, WEATHER, says
from tests.contract.gateway.wire import HELLO
from tests.servers import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def over_nats(house: House, nats_server: NatsServer, **fields: Any) -> list[dict[str, Any]]:
    """Ask as a direct client of NATS does, and collect the replies up to the last one."""
    settings = nats_server.settings()
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    body = {"v": 1, "messages": HELLO, "tools": [WEATHER, TIME], **fields}
    try:
        return await replies_to(house, client, msgpack.packb(body))
    finally:
        await client.close()


async def test_20_over_nats_calls_come_in_maps(house: House, nats_server: NatsServer) -> None:
    says(house, *BEFORE, *ONE, *OTHER)
    _, *pieces, last = await over_nats(house, nats_server, stream=True, logprobs=True)
    assert "".join(piece["text"] for piece in pieces) == "Let me look."
    calls = [call for piece in pieces for call in piece.get("tool_calls", [])]
    for index, (name, arguments) in enumerate(CALLS):
        mine = [call["function"] for call in calls if call["index"] == index]
        assert mine[0]["name"] == name
        assert json.loads("".join(call["arguments"] for call in mine)) == arguments
    assert [e["token"] for piece in pieces for e in piece.get("logprobs") or []] == [*BEFORE, *ONE, *OTHER]
    assert last["finish_reason"] == "tool_calls"
    (whole,) = await over_nats(house, nats_server, n=2)
    assert whole["text"] == "Let me look."
    assert [call["function"]["name"] for call in whole["tool_calls"]] == ["get_weather", "get_time"]
    assert len(whole["tool_calls_of"]) == 2
    assert whole["finish_reasons"] == ["tool_calls", "tool_calls"]
    (refused,) = await over_nats(house, nats_server, tool_choice="sometimes")
    assert refused["error"]["param"] == "tool_choice"
