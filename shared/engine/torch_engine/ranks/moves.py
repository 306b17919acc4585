"""A rank's heads between its cache and buffers of the whole model, in place, in the worker's arena.

Owns one piece of memory in which heads lie side by side. A buffer is laid out as one rank alone would have it
(docs/decisions/0015, 0016), so neither end of a hand-off knows how the other is split.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from shared.engine.torch_engine.ranks.shards import Shard
from shared.kv.layout import KvLayout

PIECE_BYTES: Final = 8 << 20
"""Moved at once: what was just written is still in the processor's cache when it is read again."""


class Blocks(Protocol):
    """A cache of the rank's heads alone."""

    def export(self, blocks: Sequence[int], buffer: memoryview, *, in_host: bool) -> None:
        """Gather."""
        ...

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview) -> None:
        """Scatter the KV of so many tokens; blocks beyond become zero."""
        ...


class Moves:
    """Of one rank; `layout` is the whole model's."""

    def __init__(self, layout: KvLayout, shard: Shard, dtype: torch.dtype, cache: Blocks) -> None:
        self._layout = layout
        self._heads = slice(shard.kv_heads.start, shard.kv_heads.stop)
        self._writes = shard.writes
        self._dtype = dtype
        self._cache = cache
        self._local = layout if shard.kv_heads.size == layout.kv_heads else _of_heads(layout, shard.kv_heads.size)
        self._step = max(1, PIECE_BYTES // self._local.block_bytes)  # blocks
        self._piece = memoryview(bytearray(self._step * self._local.block_bytes if self._local is not layout else 0))

    def export(self, blocks: Sequence[int], buffer: memoryview) -> None:
        """Gather this rank's heads of the blocks into the buffer, unless another rank has the same."""
        if not self._writes:
            return
        if self._local is self._layout:
            self._cache.export(blocks, buffer, in_host=True)
            return
        for some, theirs, piece in self._pieces(blocks, buffer, len(blocks)):
            self._cache.export(some, piece, in_host=True)
            theirs.copy_(self._tensor(piece, self._local))

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview) -> None:
        """Scatter this rank's heads of a buffer of so many tokens; blocks beyond them become zero."""
        if self._local is self._layout:
            self._cache.take_in(blocks, tokens, buffer)
            return
        used = self._layout.blocks_for(tokens)
        rest = [*blocks[used:]]
        for some, theirs, piece in self._pieces(blocks[:used], buffer, used):
            self._tensor(piece, self._local).copy_(theirs)
            there = min(tokens, len(some) * self._layout.block_tokens)
            tokens -= there
            self._cache.take_in(some if tokens else [*some, *rest], there, piece)

    def _pieces(
        self, blocks: Sequence[int], buffer: memoryview, number: int
    ) -> Iterator[tuple[Sequence[int], Tensor, memoryview]]:
        """Some blocks at a time: their numbers, the rank's heads of them in the buffer, and memory for as many."""
        whole = self._tensor(buffer, self._layout)[..., self._heads, :]
        for start in range(0, number, self._step):
            some = blocks[start : start + self._step]
            piece = self._piece[: len(some) * self._local.block_bytes]
            yield some, whole[start : start + len(some)], piece

    def _tensor(self, memory: memoryview, layout: KvLayout) -> Tensor:
        return torch.frombuffer(memory, dtype=self._dtype).view(layout.shape(len(memory) // layout.block_bytes))


def _of_heads(layout: KvLayout, kv_heads: int) -> KvLayout:
    """The same of so many heads alone."""
    return KvLayout(layout.model, layout.dtype, layout.layers, kv_heads, layout.head_dim, layout.block_tokens)
