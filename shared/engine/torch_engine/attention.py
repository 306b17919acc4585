"""Attention of one step over the paged cache: decoding sequences grouped by length, prompt chunks one by one.

Owns the geometry: which blocks each query sees under which kind of layer. The step's index and mask tensors are made
once and used by all layers of a kind.

Batch invariance: the padded length of a decoding sequence depends on its own length alone, and the attention kernel
treats the sequences of a group independently, so a sequence's result does not depend on its neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows [start, stop) of the step, attended in one call: one query of each of several sequences, or one chunk."""

    start: int
    stop: int
    sequences: int
    block_rows: Tensor  # [2 * layers, sequences * blocks]
    mask: Tensor | None  # added to the scores: [sequences, 1, 1, tokens] or [queries, tokens]; None is causal


@dataclass(frozen=True, slots=True)
class Span:
    """What a sequence computes in this step: the queries at positions [start, stop), over its blocks."""

    start: int
    stop: int
    blocks: list[int]


def padded(blocks: int, most: int) -> int:
    """The length, in blocks, that a table is padded to: two steps per doubling, so that few groups arise."""
    if blocks >= most:
        return most
    power = 1 << (blocks - 1).bit_length()
    return min(most, power * 3 // 4 if power > 2 and blocks <= power * 3 // 4 else power)  # noqa: PLR2004


class Geometry:
    """Turns spans into parts, for one cache and one number type of scores."""

    def __init__(self, cache: Cache, device: Device, dtype: torch.dtype) -> None:
        self._cache = cache
        self._device = device
        self._dtype = dtype
        layout = cache.layout
        self._block_size = layout.block_tokens
        plane_bytes = layout.block_tokens * layout.kv_heads * layout.head_dim * layout.item_bytes
        self._blocks_at_once = max(1, device.gather_bytes // plane_bytes)

    def parts(self, kind: LayerKind, decodes: list[Span], chunks: list[Span]) -> list[Part]:
        """All parts of a step. The rows are those of `decodes`, sorted by position, then those of `chunks`."""
        result = list(self._decode_parts(kind, decodes))
        row = len(decodes)
        for span in chunks:
            result.append(self._chunk_part(kind, span, row))
            row += span.stop - span.start
        return result

    def _decode_parts(self, kind: LayerKind, spans: list[Span]) -> Iterator[Part]:
        if not spans:
            return
        size = self._block_size
        positions: Ints = np.fromiter((span.start for span in spans), np.int64, len(spans))
        first = np.maximum(positions + 1 - kind.window, 0) // size if kind.window else np.zeros_like(positions)
        last = positions // size
        most = (kind.window + size - 2) // size + 1 if kind.window else 1 << 62
        lengths = [padded(int(number), most) for number in last - first + 1]
        start = 0
        while start < len(spans):
            stop = start + 1
            room = max(1, self._blocks_at_once // lengths[start])
            while stop < len(spans) and lengths[stop] == lengths[start] and stop - start < room:
                stop += 1
            tables = np.zeros((stop - start, lengths[start]), np.int64)  # block 0 where there is none
            for row, span in enumerate(spans[start:stop]):
                begin, end = int(first[start + row]), int(last[start + row]) + 1
                tables[row, : end - begin] = span.blocks[begin:end]
            seen = first[start:stop, None] * size + np.arange(lengths[start] * size)
            query = positions[start:stop, None]
            visible = seen <= query if not kind.window else (seen <= query) & (seen > query - kind.window)
            yield Part(start, stop, stop - start, self._rows(tables), self._mask(visible)[:, None, None, :])
            start = stop

    def _chunk_part(self, kind: LayerKind, span: Span, row: int) -> Part:
        size = self._block_size
        first = max(span.start + 1 - kind.window, 0) // size if kind.window else 0
        last = (span.stop - 1) // size
        table = np.array(span.blocks[first : last + 1], np.int64)
        stop = row + span.stop - span.start
        seen = first * size + np.arange(len(table) * size)
        query = np.arange(span.start, span.stop)[:, None]
        visible = seen <= query if not kind.window else (seen <= query) & (seen > query - kind.window)
        return Part(row, stop, 1, self._rows(table), self._mask(visible))

    def _rows(self, tables: Ints) -> Tensor:
        return self._cache.block_rows(self._device.upload(torch.from_numpy(tables.reshape(-1))))

    def _mask(self, visible: NDArray[np.bool_]) -> Tensor:
        mask = torch.from_numpy(np.where(visible, np.float32(0), np.float32(-np.inf))).to(self._dtype)
        return self._device.upload(mask)


def attend(queries: Tensor, cache: Cache, layer: int, parts: list[Part], scale: float) -> Tensor:
    """[rows, heads, head_dim] -> [rows, heads * head_dim]. Several query heads share one key head."""
    rows, heads, head_dim = queries.shape
    kv_heads = cache.layout.kv_heads
    group = heads // kv_heads
    out = torch.empty((rows, kv_heads, group, head_dim), dtype=queries.dtype, device=queries.device)
    for part in parts:
        query = queries[part.start : part.stop].view(-1, kv_heads, group, head_dim)
        keys, values = cache.read(layer, part.block_rows, part.sequences)
        if part.mask is not None and part.mask.dim() > 2:  # noqa: PLR2004  one query per sequence: heads as queries
            result = functional.scaled_dot_product_attention(query, keys, values, attn_mask=part.mask, scale=scale)
        else:
            keys, values = (x.transpose(0, 1).expand(-1, group, -1, -1) for x in (keys, values))
            query = query.permute(1, 2, 0, 3)  # [kv_heads, group, queries, head_dim]
            result = functional.scaled_dot_product_attention(query, keys, values, attn_mask=part.mask, scale=scale)
            result = result.permute(2, 0, 1, 3)
        out[part.start : part.stop] = result
    return out.flatten(1)
