"""Steps of the paged layout over a cache of random content, and what they should come to, worked out in float64.

Every token of every sequence has an id of its own, so that rows are told apart whatever their order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared.engine import Sequence
from shared.engine.torch_engine.architecture import Architecture, LayerKind, Rope
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cuda.norms import FusedNorm
from shared.engine.torch_engine.cuda.paged import PagedLayout
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.rotary import frequencies
from shared.engine.torch_engine.scheduler import Chunk, Plan
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.view import Batch, HeadNorms
from shared.kv.layout import KvLayout
from shared.messages import Sampling, Stopping

LAYER, LAYERS = 1, 3
WHERE = resolve("cuda" if torch.cuda.is_available() else "cpu")


def architecture(
    heads: int = 4, kv_heads: int = 2, head_dim: int = 16, *, windows: Iterable[int] = (0,), qk_norm: bool = False
) -> Architecture:
    """One layer per window."""
    return Architecture(
        family="llama",
        vocabulary=1 << 30,
        hidden=heads * head_dim,
        intermediate=32,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        layers=tuple(LayerKind(Rope(100.0 + window), window) for window in windows),
        context=1 << 14,
        eps=1e-6,
        activation="silu",
        attention_scale=head_dim**-0.5,
        tied=False,
        qk_norm=qk_norm,
    )


@dataclass(frozen=True)
class Seen:
    """What a step came to, for each kind of layer: [tokens, heads * head_dim] by id, and the cache afterwards."""

    attended: dict[LayerKind, Tensor]
    cache: dict[LayerKind, Tensor]
    sampled: list[tuple[str, int]]  # sequence and token


class Bench:
    """Sequences, their cache and its layout."""

    def __init__(
        self,
        shape: Architecture,
        *,
        block_size: int = 4,
        blocks: int = 64,
        dtype: torch.dtype = torch.float32,
        sequences: int = 8,
        ids: int = 512,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._generator = torch.Generator().manual_seed(0)
        name = str(dtype).removeprefix("torch.")
        self.cache = Cache(
            KvLayout("m", name, LAYERS, shape.kv_heads, shape.head_dim, block_size), blocks, dtype, WHERE
        )
        self.cache._blocks.copy_(self._random(*self.cache._blocks.shape))
        self.layout = PagedLayout(shape, self.cache, WHERE, dtype, sequences=sequences)
        self.free = torch.randperm(blocks, generator=self._generator).add(1).tolist()
        self._ids = 0
        self._projected = self._random(ids, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        self._norms: HeadNorms | None = None
        if shape.qk_norm:
            self._norms = HeadNorms(
                FusedNorm(self._random(shape.head_dim), 1e-6), FusedNorm(self._random(shape.head_dim), 1e-2)
            )

    def run(self, tokens: int, computed: int) -> Run:
        """A sequence with room for so many tokens."""
        ids = list(range(self._ids, self._ids + tokens))
        self._ids += tokens
        run = Run(Sequence(f"run {ids[0]}", ids, tokens, Sampling(temperature=0.0), Stopping(max_tokens=16)))
        run.blocks = [self.free.pop() for _ in range(-(-tokens // self.cache.layout.block_tokens))]
        run.computed = computed
        return run

    def grow(self, run: Run) -> None:
        """A decoding sequence goes one token on."""
        run.computed += 1
        if run.computed == len(run.tokens):
            run.tokens.append(self._ids)
            self._ids += 1
        if run.computed // self.cache.layout.block_tokens == len(run.blocks):
            run.blocks.append(self.free.pop())

    def seen(self, batch: Batch, samples: list[Run] | None = None) -> Seen:
        """Attend with every kind of layer; the cache is left as it was."""
        before = self.cache._blocks.clone()
        tokens = batch.tokens.long()
        attended, caches = {}, {}
        for kind, view in batch.views.items():
            out = view.attend(LAYER, self._projected[tokens].clone(), self._norms, self.shape.attention_scale)
            attended[kind] = self._by_id(out).index_copy_(0, tokens, out)
            caches[kind] = self.cache._blocks.clone()
            self.cache._blocks.copy_(before)
        rows = tokens if batch.sampled is None else tokens[batch.sampled]
        runs = batch.samples if samples is None else samples
        return Seen(attended, caches, sorted(zip((run.key for run in runs), rows.tolist(), strict=False)))

    def expected(self, plan: Plan) -> Seen:
        """The same, by the definition."""
        spans = [(run, run.computed, run.computed + 1) for run in plan.decodes]
        spans += [(chunk.run, chunk.start, chunk.stop) for chunk in plan.chunks]
        attended, caches = {}, {}
        for kind in self.shape.kinds:
            attended[kind], cache = self._by_id(self._projected), self.cache._blocks.clone()
            for run, start, stop in spans:
                attended[kind][run.tokens[start:stop]] = self._attended(kind, cache, run, start, stop)
            caches[kind] = cache
        ends = [(run.key, run.tokens[run.computed]) for run in plan.decodes]
        ends += [(chunk.run.key, chunk.run.tokens[chunk.stop - 1]) for chunk in plan.chunks if chunk.completes]
        return Seen(attended, caches, sorted(ends))

    def _attended(self, kind: LayerKind, cache: Tensor, run: Run, start: int, stop: int) -> Tensor:
        a, size = self.shape, self.cache.layout.block_tokens
        positions = torch.arange(start, stop, device=cache.device)
        projected = self._projected[run.tokens[start:stop]].double()
        queries, keys, values = projected.split((a.heads, a.kv_heads, a.kv_heads), dim=1)
        if self._norms is not None:
            queries, keys = (_normed(x, norm) for x, norm in zip((queries, keys), self._norms, strict=True))
        angles = (positions[:, None, None] * frequencies(kind.rope, a.head_dim).to(cache.device)).double()
        queries, keys = _turned(queries, angles), _turned(keys, angles)
        blocks = torch.tensor(run.blocks, device=cache.device)
        for which, content in enumerate((keys, values)):
            cache[blocks[positions // size], LAYER, which, positions % size] = content.to(self.dtype)
        keys, values = (cache[blocks, LAYER, which].flatten(0, 1)[:stop].double() for which in (0, 1))
        keys, values = (x.repeat_interleave(a.heads // a.kv_heads, 1) for x in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * a.attention_scale
        seen = torch.arange(stop, device=cache.device)
        hidden = seen > positions[:, None]
        if kind.window:
            hidden |= seen <= positions[:, None] - kind.window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, values).flatten(1).to(self.dtype)

    def _by_id(self, like: Tensor) -> Tensor:
        return like.new_zeros((len(self._projected), self.shape.heads * self.shape.head_dim))

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(WHERE.where, self.dtype)


def _normed(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return torch.cat((low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()), -1)


def chunk(run: Run, stop: int) -> Chunk:
    """Of a prompt, what follows on what is computed."""
    return Chunk(run, run.computed, stop)


def agree(seen: Seen, expected: Seen, **tolerance: Any) -> None:
    """Up to rounding, and the same samples."""
    assert seen.sampled == expected.sampled
    for kind, attended in expected.attended.items():
        torch.testing.assert_close(seen.cache[kind], expected.cache[kind], **tolerance)
        torch.testing.assert_close(seen.attended[kind], attended, **tolerance)
