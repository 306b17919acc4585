"""KV between a cache on a GPU and host memory: the same bytes, by pinned memory or past it, whatever their number."""

import gc
import random
from collections.abc import Iterator

import pytest
import torch

from shared.engine.torch_engine import passage, pinning
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import resolve
from shared.kv.arena import Arena
from shared.kv.layout import KvLayout

pytestmark = pytest.mark.gpu

LAYOUT = KvLayout("test", "bfloat16", layers=4, kv_heads=2, head_dim=64, block_tokens=16)
BLOCKS = 96


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of five blocks, and segments that end within them."""
    monkeypatch.setattr(passage, "SLICE_BYTES", 5 * LAYOUT.block_bytes)
    monkeypatch.setattr(pinning, "SEGMENT_BYTES", 3 * 4096 * 7)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(3 * BLOCKS * LAYOUT.block_bytes)
    yield arena
    arena.close()


@pytest.fixture
def caches() -> Iterator[tuple[Cache, Cache]]:
    """On the GPU and on the processor, with the same content."""
    with torch.inference_mode():
        there = Cache(LAYOUT, BLOCKS, torch.bfloat16, resolve("cuda:0"))
        here = Cache(LAYOUT, BLOCKS, torch.bfloat16, resolve("cpu"))
        here._blocks.copy_(torch.randn(here._blocks.shape))
        there._blocks.copy_(here._blocks)
        yield there, here


def chosen(number: int) -> list[int]:
    return random.Random(number).sample(range(1, BLOCKS + 1), number)  # noqa: S311  no secret


@pytest.mark.parametrize("number", [1, 4, 5, 11, BLOCKS])
@pytest.mark.parametrize("lies", ["in an arena", "elsewhere"])
def test_what_leaves_a_gpu_is_what_leaves_the_processor(
    caches: tuple[Cache, Cache], arena: Arena, number: int, lies: str
) -> None:
    there, here = caches
    nbytes, blocks = number * LAYOUT.block_bytes, chosen(number)
    arena.reserve(4096)  # so that the buffer does not begin where the memory does
    buffers = [arena.reserve(nbytes).view if lies == "in an arena" else memoryview(bytearray(nbytes)) for _ in "ab"]
    for _ in range(2):
        there.export(blocks, buffers[0])
    here.export(blocks, buffers[1])
    assert buffers[0] == buffers[1]
    assert there._passage is not None
    assert there._passage._pinned.reaches(buffers[0]) == (lies == "in an arena")


@pytest.mark.parametrize("number", [1, 4, 5, 11, BLOCKS])
@pytest.mark.parametrize("lies", ["in an arena", "elsewhere"])
def test_what_a_gpu_takes_in_is_what_the_processor_takes_in(
    caches: tuple[Cache, Cache], arena: Arena, number: int, lies: str
) -> None:
    there, here = caches
    nbytes, blocks = number * LAYOUT.block_bytes, chosen(number)
    buffer = arena.reserve(nbytes).view if lies == "in an arena" else memoryview(bytearray(nbytes))
    for turn in range(2):
        buffer[:] = random.Random(turn).randbytes(nbytes)  # noqa: S311  no secret
        for cache in (there, here):
            cache.take_in(blocks, number * LAYOUT.block_tokens, buffer)
        buffer[:] = bytes(nbytes)  # it is free
    assert torch.equal(there._blocks.cpu().view(torch.int16), here._blocks.view(torch.int16))


def test_memory_at_the_place_of_an_earlier_arena_is_not_taken_for_it(caches: tuple[Cache, Cache]) -> None:
    there, here = caches
    nbytes, blocks = BLOCKS * LAYOUT.block_bytes, chosen(BLOCKS)
    expected = memoryview(bytearray(nbytes))
    here.export(blocks, expected)
    for _ in range(3):
        arena = Arena(nbytes)
        staging = arena.reserve(nbytes)
        there.export(blocks, staging.view)
        assert staging.view == expected
        staging.release()
        arena.close()
        del staging, arena
        gc.collect()
