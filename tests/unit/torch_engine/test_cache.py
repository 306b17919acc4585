"""The paged cache: what was exported is what is taken in, wherever the blocks lie and whatever a block's size."""

import random

import pytest
import torch

from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import resolve
from shared.kv.layout import KvLayout

LAYOUTS = [
    KvLayout("test", "float32", layers=3, kv_heads=2, head_dim=8, block_tokens=4),
    KvLayout("test", "bfloat16", layers=1, kv_heads=1, head_dim=3, block_tokens=1),  # of no larger words
    KvLayout("test", "bfloat16", layers=1, kv_heads=1, head_dim=2, block_tokens=1),
]
BLOCKS = 12


def filled(layout: KvLayout) -> Cache:
    """With other numbers in every block but the first."""
    cache = Cache(layout, BLOCKS, getattr(torch, layout.dtype), resolve("cpu"))
    cache._blocks[1:] = torch.randn(layout.shape(BLOCKS))
    return cache


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_blocks_that_leave_one_cache_come_into_another(layout: KvLayout) -> None:
    one, other = filled(layout), filled(layout)
    blocks, places = random.Random(1).sample(range(1, BLOCKS + 1), 5), [7, 2, 9, 4, 11]  # noqa: S311  no secret
    buffer = memoryview(bytearray(5 * layout.block_bytes))
    before = other._blocks.clone()
    one.export(blocks, buffer)
    other.take_in([*places, 5], 5 * layout.block_tokens, memoryview(bytes(buffer)))
    assert torch.equal(other._blocks[places], one._blocks[blocks])
    assert not other._blocks[5].any(), "a block beyond the tokens keeps nothing of an earlier sequence"
    untouched = [block for block in range(BLOCKS + 1) if block not in [*places, 5]]
    assert torch.equal(other._blocks[untouched], before[untouched])


@torch.inference_mode()
def test_what_the_sender_left_behind_the_last_token_is_not_kept() -> None:
    layout = LAYOUTS[0]
    one, other = filled(layout), filled(layout)
    buffer = memoryview(bytearray(2 * layout.block_bytes))
    one.export([3, 1], buffer)
    other.take_in([1, 2], layout.block_tokens + 1, buffer)
    assert torch.equal(other._blocks[1], one._blocks[3])
    assert torch.equal(other._blocks[2, :, :, :1], one._blocks[1, :, :, :1])
    assert not other._blocks[2, :, :, 1:].any()
