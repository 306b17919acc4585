"""Steps laid out for torch's own attention kernels, on any device: keys and values are gathered, then attended.

Owns the order of rows: decoding sequences by length, then the chunks in the plan's order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.attention import Geometry, Part, Span, attend
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.rotary import Rotation, frequencies
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.view import Batch, HeadNorms


@dataclass(frozen=True, slots=True)
class GatheredView:
    """See View."""

    cache: Cache
    heads: int
    rotation: Rotation
    token_rows: Tensor  # [2 * layers, rows], see Cache.token_rows
    parts: list[Part]

    def attend(self, layer: int, heads: Tensor, norms: HeadNorms | None, scale: float) -> Tensor:
        """Each in operations of its own."""
        kv_heads = self.cache.layout.kv_heads
        queries, keys, values = heads.split_with_sizes((self.heads, kv_heads, kv_heads), dim=1)
        if norms is not None:
            queries, keys = norms.query(queries), norms.key(keys)
        self.cache.write(layer, self.token_rows, self.rotation(keys), values)
        return attend(self.rotation(queries), self.cache, layer, self.parts, scale)


class GatheredLayout:
    """See Layout."""

    def __init__(self, architecture: Architecture, cache: Cache, device: Device, dtype: torch.dtype) -> None:
        self._heads = architecture.heads
        self._cache = cache
        self._device = device
        self._dtype = dtype
        self._geometry = Geometry(cache, device, dtype)
        self._frequencies = {
            kind: frequencies(kind.rope, architecture.head_dim).to(device.where) for kind in architecture.kinds
        }

    def batch(self, plan: Plan) -> Batch:
        """See Layout."""
        decodes = sorted(plan.decodes, key=lambda run: run.computed)  # equal padded lengths side by side
        spans = [Span(run.computed, run.computed + 1, run.blocks) for run in decodes]
        chunks = [Span(chunk.start, chunk.stop, chunk.run.blocks) for chunk in plan.chunks]
        tokens = [run.tokens[run.computed] for run in decodes]
        samples, rows = list(decodes), list(range(len(decodes)))
        for chunk in plan.chunks:
            tokens += chunk.run.tokens[chunk.start : chunk.stop]
            if chunk.completes:
                samples.append(chunk.run)
                rows.append(len(tokens) - 1)
        size = self._cache.layout.block_tokens
        positions = np.concatenate([np.arange(span.start, span.stop) for span in (*spans, *chunks)])
        blocks = np.concatenate([np.array(_written(span, size), np.int64) for span in (*spans, *chunks)])
        columns = np.stack((np.array(tokens), positions, blocks, positions % size))
        ids, places, of_blocks, offsets = self._device.upload(torch.from_numpy(columns)).unbind(0)
        token_rows = self._cache.token_rows(of_blocks, offsets)
        views = {
            kind: GatheredView(
                self._cache,
                self._heads,
                Rotation.at(places, frequency, self._dtype),
                token_rows,
                self._geometry.parts(kind, spans, chunks),
            )
            for kind, frequency in self._frequencies.items()
        }
        sampled = None if len(rows) == len(tokens) else self._device.upload(torch.tensor(rows, dtype=torch.int64))
        return Batch(ids, views, sampled, samples)


def _written(span: Span, block_size: int) -> list[int]:
    """The block of each position of the span."""
    return [span.blocks[position // block_size] for position in range(span.start, span.stop)]
