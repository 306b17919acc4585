"""The worker's end of the notes, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq
import zmq.asyncio

from shared.engine.vllm_engine.hub import Hub
from shared.engine.vllm_engine.notes import (
    Ended,
    FromVllm,
    Gathered,
    Loaded,
    Lost,
    Part,
    Plan,
    Registered,
    Skipped,
    pack,
    parse_plan,
)
from shared.errors import EngineFailed, KvRefused
from tests.waiting import until

PLAN = Plan("/proc/1/fd/3", 4096, {"layer": 0})
WORLD = 2


class Peers:
    """EngineCore and ranks."""

    def __init__(self, address: str) -> None:
        self._context = zmq.asyncio.Context()
        self._address = address
        self.sockets: list[Any] = []

    def connect(self) -> Any:
        socket = self._context.socket(zmq.DEALER)
        socket.connect(self._address)
        self.sockets.append(socket)
        return socket

    async def say(self, note: FromVllm, peer: int = 0) -> None:
        await self.sockets[peer].send(pack(note))

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(linger=0)
        self._context.term()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub(lambda found, _: PLAN if len(found) == WORLD else pytest.fail("planned too early"))
    running = asyncio.ensure_future(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    made.close()


@pytest.fixture
async def peers(hub: Hub) -> AsyncIterator[Peers]:
    made = Peers(hub.address)
    for rank in range(WORLD):
        made.connect()
        await made.say(Registered(rank, WORLD, 0, 10, 16, [Part("layer", 2, rank, 1, 64)], "x"), rank)
    for socket in made.sockets:
        async with asyncio.timeout(10):
            assert parse_plan(await socket.recv()) == PLAN
    yield made
    made.close()


async def settled(future: "asyncio.Future[None]") -> None:
    async with asyncio.timeout(10):
        await asyncio.shield(future)


async def test_every_rank_gets_the_plan_once_all_have_registered(hub: Hub, peers: Peers) -> None:
    assert [one.rank for one in hub.registrations] == [0, 1]


async def test_a_buffer_has_moved_when_every_rank_has_said_so(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    await peers.say(Gathered(0, "1"), 0)
    await peers.say(Gathered(0, "1"), 0)  # the same rank again is not another one
    await peers.say(Ended("1", moves=True))
    await until(lambda: passage.ended is not None, "the end to be heard")
    assert not passage.moved.done()
    assert not passage.over.done()
    await peers.say(Gathered(1, "1"), 1)
    await settled(passage.moved)
    await settled(passage.over)


async def test_the_range_is_held_until_enginecore_is_done_with_the_request(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    for rank in range(WORLD):
        await peers.say(Loaded(rank, "1"), rank)
    await settled(passage.moved)
    assert not passage.over.done()
    await peers.say(Ended("1", moves=True))
    await settled(passage.over)


async def test_one_lost_part_is_a_lost_buffer(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    await peers.say(Lost(1, "1", "no memory"), 1)
    await until(lambda: len(passage.ranks) == 1, "the loss to be heard")
    assert not passage.moved.done()  # another rank may still be at it
    await peers.say(Loaded(0, "1"), 0)
    with pytest.raises(KvRefused, match="no memory"):
        await settled(passage.moved)


async def test_what_needs_no_move_has_moved_and_is_over_with_its_request(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    await peers.say(Skipped("1"))
    await settled(passage.moved)
    await peers.say(Ended("1", moves=False))
    await settled(passage.over)


async def test_a_request_that_ends_before_it_moves_lets_go_at_once(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    await peers.say(Ended("1", moves=False))
    await settled(passage.over)
    with pytest.raises(KvRefused):
        await settled(passage.moved)


async def test_rubbish_and_strangers_disturb_nobody(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    stranger = peers.connect()
    await stranger.send(b"\xff" * 100)
    await stranger.send_multipart([b"", b""])
    await peers.say(Gathered(0, "unknown"))
    for rank in range(WORLD):
        await peers.say(Gathered(rank, "1"), rank)
    await settled(passage.moved)


async def test_a_dead_engine_is_told_to_whoever_waits(hub: Hub, peers: Peers) -> None:
    passage = hub.open("1")
    hub.fail(EngineFailed("vLLM died", fatal=True))
    for future in (passage.moved, passage.over):
        with pytest.raises(EngineFailed):
            await settled(future)
