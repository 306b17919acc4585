"""Buffers do not know how many ranks wrote them."""

from dataclasses import replace

import pytest
import torch

from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.ranks import moves as moves_module
from shared.engine.torch_engine.ranks.moves import Moves
from shared.engine.torch_engine.ranks.shards import shard
from shared.kv.layout import KvLayout
from tests.unit.torch_engine.ranks.test_shards import MODEL

BLOCKS, TOKENS = 12, 4


class OneRank:
    """A cache as an executor offers it."""

    def __init__(self, layout: KvLayout) -> None:
        self.cache = Cache(layout, BLOCKS, torch.float32, resolve("cpu"))

    def export(self, blocks: list[int], buffer: memoryview, *, in_host: bool) -> None:
        assert in_host
        self.cache.export(blocks, buffer)

    def take_in(self, blocks: list[int], tokens: int, buffer: memoryview) -> None:
        self.cache.take_in(blocks, tokens, buffer)


def ranks(layout: KvLayout, world: int) -> list[Moves]:
    model = replace(MODEL, kv_heads=layout.kv_heads)
    shards = [shard(model, rank, world) for rank in range(world)]
    caches = [OneRank(replace(layout, kv_heads=one.kv_heads.size)) for one in shards]
    return [Moves(layout, one, torch.float32, cache) for one, cache in zip(shards, caches, strict=True)]


@pytest.mark.parametrize("piece_blocks", [1, 3, 100])
@pytest.mark.parametrize(("kv_heads", "given", "taken"), [(4, 2, 4), (4, 1, 2), (2, 4, 1), (1, 4, 2), (2, 8, 4)])
def test_what_some_ranks_have_written_any_other_number_reads(
    kv_heads: int, given: int, taken: int, piece_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = KvLayout("m", "float32", layers=2, kv_heads=kv_heads, head_dim=6, block_tokens=TOKENS)
    monkeypatch.setattr(moves_module, "PIECE_BYTES", piece_blocks * replace(layout, kv_heads=1).block_bytes)
    tokens = 4 * TOKENS + 1
    content = torch.randn(layout.shape(5))
    content[4, :, :, 1:] = 0  # no token is there
    buffer = memoryview(bytearray(content.numpy().tobytes()))
    sources, sinks = ranks(layout, given), ranks(layout, taken)
    for one in sources:
        one.take_in([7, 1, 3, 4, 9, 10], tokens, buffer)
    between, after = (memoryview(bytearray(b"\xa5" * 6 * layout.block_bytes)) for _ in range(2))
    for one in sources:
        one.export([7, 1, 3, 4, 9, 10], between)
    assert between[: 5 * layout.block_bytes] == buffer
    assert not any(between[5 * layout.block_bytes :])  # the block beyond the tokens became zero
    for one in sinks:
        one.take_in([2, 8, 5, 6, 11], tokens, between[: 5 * layout.block_bytes])
    for one in sinks:
        one.export([2, 8, 5, 6, 11], after[: 5 * layout.block_bytes])
    assert after[: 5 * layout.block_bytes] == buffer


def test_of_ranks_with_the_same_kv_head_the_lowest_writes_it() -> None:
    layout = KvLayout("m", "float32", layers=2, kv_heads=2, head_dim=6, block_tokens=TOKENS)
    for number, one in enumerate(ranks(layout, 4)):
        buffer = memoryview(bytearray(b"\xa5" * layout.block_bytes))
        one.export([1], buffer)
        assert (set(buffer) != {0xA5}) == (number % 2 == 0)
