"""Where buffers lie: which stay on the devices, and what vLLM is told."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shared.engine import EngineInfo, Sequence
from shared.engine.vllm_engine.buffers import Buffers
from shared.engine.vllm_engine.held import Held
from shared.errors import KvRefused
from shared.kv.arena import Arena, Range
from shared.messages import Sampling, Stopping

INFO = EngineInfo("m", "f", 64, 16, 4096, 6, 3, frozenset())
PAGE = 4096


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(16 * PAGE, shared=True)
    yield made
    made.close()


async def held(*, prefills: bool) -> Held:
    sequence = Sequence("k", [5] * 20, 20, Sampling(), Stopping(max_tokens=8))
    made = Held(sequence, prefills, asyncio.get_running_loop().create_future(), frozenset())
    made.number = "1"
    return made


def device(size: int) -> Any:
    return SimpleNamespace(size=size)


def reserved(arena: Arena) -> Range:
    return arena.reserve(INFO.kv_bytes(20))


async def test_without_devices_all_is_in_host_memory(arena: Arena) -> None:
    buffers, taken = Buffers(arena), reserved(arena)
    one = await held(prefills=True)
    told = buffers.transfer(one, buffers.check(taken.view, 20, INFO), 20, INFO, may_stay=True)
    assert (told.offset, told.tokens, told.blocks, told.device) == (taken.offset, 20, 2, False)
    buffers.complete(one)
    assert not arena.on_device


async def test_a_prompts_buffer_stays_where_there_is_room_and_is_found_there(arena: Arena) -> None:
    arena.device = device(2 * PAGE)
    buffers, first, beyond = Buffers(arena), reserved(arena), reserved(arena)
    one = await held(prefills=True)
    assert buffers.transfer(one, first.offset, 20, INFO, may_stay=True).device
    assert not arena.on_device  # not before it is complete
    buffers.complete(one)
    assert arena.on_device == {first.offset}
    taker = await held(prefills=False)
    assert buffers.transfer(taker, first.offset, 20, INFO, may_stay=False).device
    other = await held(prefills=True)
    assert not buffers.transfer(other, beyond.offset, 20, INFO, may_stay=True).device
    first.release()
    assert not arena.on_device
    arena.device = None


async def test_what_may_not_stay_goes_to_host_memory(arena: Arena) -> None:
    arena.device = device(16 * PAGE)
    buffers, taken = Buffers(arena), reserved(arena)
    one = await held(prefills=True)
    assert not buffers.transfer(one, taken.offset, 20, INFO, may_stay=False).device
    buffers.complete(one)
    assert not arena.on_device
    arena.device = None


async def test_a_buffer_of_another_size_or_place_is_refused(arena: Arena) -> None:
    buffers, taken = Buffers(arena), reserved(arena)
    with pytest.raises(KvRefused):
        buffers.check(taken.view[:-1], 20, INFO)
    with pytest.raises(ValueError, match="does not lie in this arena"):
        buffers.check(memoryview(bytearray(INFO.kv_bytes(20))), 20, INFO)
