"""The transfer that is measured against: the same bytes arrive, block by block, in the order of either end's cache."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config import KvSettings
from shared.kv.arena import Arena
from shared.kv.block_fixed import BlockFixed
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.wire import push_key
from shared.messages import KvGrant
from tests.kv_ends import LONG_MS, descriptors, in_ms

BLOCK = 4096
BLOCKS = 9
SIZE = BLOCKS * BLOCK


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Sender, Receiver, Arena]]:
    before = descriptors()
    arenas = Arena(SIZE), Arena(SIZE)
    sender = Sender(arenas[0], KvSettings(), BlockFixed(BLOCK, seed=1))
    receiver = await Receiver.open(KvSettings(), arenas[1], BlockFixed(BLOCK, seed=2))
    yield sender, receiver, arenas[0]
    await sender.close()
    await receiver.close()
    for arena in arenas:
        assert not arena.in_use
        arena.close()
    assert descriptors() == before


async def test_every_block_arrives_once_in_another_order(ends: tuple[Sender, Receiver, Arena], transport: str) -> None:
    sender, receiver, arena = ends
    staging = arena.reserve(SIZE)
    for block in range(BLOCKS):
        staging.view[block * BLOCK : (block + 1) * BLOCK] = bytes([block]) * BLOCK
    push = receiver.expect(push_key("request", 0), SIZE, in_ms(LONG_MS))
    endpoints = [one for one in receiver.endpoints if one.transport == transport]
    grant = KvGrant("request", 0, "decode-1", (1, 1), push.ticket, endpoints, in_ms(LONG_MS))
    waiting = asyncio.create_task(push.received())
    assert await sender.push(staging, grant) == transport
    received = await waiting
    order = [received.view[block * BLOCK] for block in range(BLOCKS)]
    assert sorted(order) == list(range(BLOCKS))
    assert order != sorted(order), "the blocks lie as they did at the sender"
    for place, block in enumerate(order):
        assert received.view[place * BLOCK : (place + 1) * BLOCK] == bytes([block]) * BLOCK
    received.release()
    staging.release()
