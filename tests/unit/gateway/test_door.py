"""The door gives back what it took, whenever it closes."""

import asyncio
import socket
from contextlib import AsyncExitStack

from aiohttp import web

from services.gateway.http.crowd import Crowd
from services.gateway.http.server import Door
from services.gateway.http.terms import Terms
from shared.config import GatewaySettings
from tests.descriptors import descriptors

TURNS = 6
"""Of the event loop; a connection is made in fewer."""


async def _never(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nothing was asked")


async def test_a_connection_that_comes_while_the_door_closes_leaves_no_socket_and_no_place_taken() -> None:
    welcomed = set()
    for turns in range(TURNS):
        before = descriptors()
        async with AsyncExitStack() as stack:
            terms = Terms.read(GatewaySettings(host="127.0.0.1", port=0))
            crowd = Crowd(terms)
            door = Door(_never, terms, crowd)
            await door.open(stack)
            with socket.create_connection(("127.0.0.1", door.port)):
                for _ in range(turns):
                    await asyncio.sleep(0)
                welcomed.add(crowd.size)
                await stack.aclose()
        await asyncio.sleep(0.01)  # transports close in the next turn
        assert crowd.size == 0, f"closed after {turns} turns"
        assert descriptors() == before, f"closed after {turns} turns"
    assert welcomed == {0, 1}
