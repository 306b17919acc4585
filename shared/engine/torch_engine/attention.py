"""Attention of one step over the paged cache: decoding sequences grouped by length, prompt chunks in tiles.

Owns the geometry: which blocks each query sees under which kind of layer. The step's index and mask tensors are made
once and used by all layers of a kind.

Steadiness (docs/decisions/0008): on a steady device in float32 a query's result depends on its position and on what it
sees alone: not on its company, nor on whether it is decoded or belongs to a prompt, however that is cut. The kernel
goes over the keys 512 at a time and sums within those in an order that depends on how many they are. So where keys
begin and how many the query's own 512 count is a function of the position; whole 512 more change nothing: what a query
does not see adds exact zeros. And no call has fewer rows than are summed in one order, see `steady.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.steady import NONE, QUERY_BLOCK, fewest_rows

KEY_STEP: Final = 32
KEY_BLOCK: Final = 512
"""So many keys at a time, says torch's kernel for the CPU."""
ORIGIN_STEP: Final = 64
"""Under a window, so many positions begin with the same key: more would read more, fewer leave threads idle."""
WHOLE: Final = 1 << 62

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows [start, stop) of the step, attended in one call over the part's keys [first, last)."""

    start: int
    stop: int
    first: int
    last: int
    mask: Tensor  # added to the scores: [sequences, 1, 1, keys] or [rows, keys]
    rows: int  # see attend_to


@dataclass(frozen=True, slots=True)
class Part:
    """What is read from the cache at once: for one query of each of several sequences, or for one chunk's tiles."""

    sequences: int
    block_rows: Tensor  # see Cache
    tiles: list[Tile]


@dataclass(frozen=True, slots=True)
class Span:
    """What a sequence computes in this step: the queries at positions [start, stop), over its blocks."""

    start: int
    stop: int
    blocks: list[int]


def padded(seen: Ints) -> Ints:
    """How many keys are read for queries that see so many: two steps per doubling, so that few groups arise."""
    unit = np.where(seen > KEY_BLOCK, KEY_BLOCK, KEY_STEP)
    power = 1 << np.ceil(np.log2(-(-seen // unit))).astype(np.int64)
    return np.where((power > 2) & (-(-seen // unit) <= power * 3 // 4), power * 3 // 4, power) * unit  # noqa: PLR2004


class Geometry:
    """Turns spans into parts, for one cache and one number type of scores.

    `rows`: a call with fewer query rows is padded to so many.
    """

    def __init__(self, cache: Cache, device: Device, dtype: torch.dtype) -> None:
        self._cache = cache
        self._device = device
        self._dtype = dtype
        layout = cache.layout
        size = self._block_size = layout.block_tokens
        plane_bytes = size * layout.kv_heads * layout.head_dim * layout.item_bytes
        self._blocks_at_once = max(1, device.gather_bytes // plane_bytes)
        self._step = math.lcm(size, ORIGIN_STEP)
        self.rows = fewest_rows(layout.head_dim) if device.steady and dtype == torch.float32 else NONE

    def parts(self, kind: LayerKind, decodes: list[Span], chunks: list[Span], row: int = 0) -> list[Part]:
        """All parts of a step. From `row` on, the rows are those of `decodes`, sorted by position, then of `chunks`."""
        result = list(self._decode_parts(kind, decodes, row))
        row += len(decodes)
        for span in chunks:
            result.append(self._chunk_part(kind, span, row))
            row += span.stop - span.start
        return result

    def reach(self, kind: LayerKind, positions: Ints) -> tuple[Ints, Ints]:
        """What is read for queries decoded at these positions: the first key, and how many."""
        origins = self._origins(kind, positions)
        return origins, np.minimum(padded(positions - origins + 1), self._most(kind))

    def _decode_parts(self, kind: LayerKind, spans: list[Span], row: int) -> Iterator[Part]:
        if not spans:
            return
        positions: Ints = np.fromiter((span.start for span in spans), np.int64, len(spans))
        origins, lengths = self.reach(kind, positions)
        start = 0
        while start < len(spans):
            keys = int(lengths[start])
            stop = start + 1
            room = self.at_once(keys)
            while stop < len(spans) and lengths[stop] == keys and stop - start < room:
                stop += 1
            some = slice(start, stop)
            mask = self.visible(kind, origins[some], keys, positions[some])[:, None, None, :]
            tile = Tile(row + start, row + stop, 0, keys, mask, self.rows)
            yield Part(stop - start, self.tables(spans[some], origins[some], keys), [tile])
            start = stop

    def at_once(self, keys: int) -> int:
        """Of how many sequences so many keys are read at once."""
        return max(1, self._blocks_at_once // -(-keys // self._block_size))

    def tables(self, spans: list[Span], origins: Ints, keys: int) -> Tensor:
        """Where in the cache so many keys from the origins on lie, each for one query; see Cache.block_rows."""
        size = self._block_size
        tables = np.zeros((len(spans), -(-keys // size)), np.int64)  # block 0 where there is none
        for row, (span, origin) in enumerate(zip(spans, origins.tolist(), strict=True)):
            some = span.blocks[origin // size : span.start // size + 1]
            tables[row, : len(some)] = some
        return self._block_rows(tables)

    def visible(self, kind: LayerKind, origins: Ints, keys: int, positions: Ints) -> Tensor:
        """What of so many keys from the origins on the queries at the positions see: [queries, keys], 0 or -inf."""
        return self._mask(kind, origins[:, None] + np.arange(keys), positions[:, None])

    def _chunk_part(self, kind: LayerKind, span: Span, row: int) -> Part:
        size = self._block_size
        positions = np.arange(span.start, span.stop)
        origins = self._origins(kind, positions)
        seen = positions - origins + 1
        keys = np.where(seen > KEY_BLOCK, -(-seen // KEY_BLOCK) * KEY_BLOCK, padded(seen))
        keys = np.minimum(keys, self._most(kind))
        if not self._device.steady:  # one tile
            keys[:] = (origins + keys).max() - origins[0]
            origins[:] = origins[0]
        cuts = np.flatnonzero(np.diff(origins) | np.diff(keys)) + 1
        tiles = []
        for start, stop in pairwise((0, *cuts.tolist(), len(positions))):
            rows = stop - start if self.rows == NONE else -(-(stop - start) // QUERY_BLOCK) * QUERY_BLOCK
            mask = self._mask(
                kind, origins[start] + np.arange(keys[start]), positions[start] + np.arange(rows)[:, None]
            )
            first = int(origins[start] - origins[0])
            tiles.append(Tile(row + start, row + stop, first, first + int(keys[start]), mask, rows))
        table = np.zeros(-(-max(tile.last for tile in tiles) // size), np.int64)
        some = span.blocks[int(origins[0]) // size : (span.stop - 1) // size + 1]
        table[: len(some)] = some
        return Part(1, self._block_rows(table), tiles)

    def _origins(self, kind: LayerKind, positions: Ints) -> Ints:
        """The first key read for the queries at these positions."""
        if not kind.window:
            return np.zeros_like(positions)
        return np.maximum(positions // ORIGIN_STEP * ORIGIN_STEP - kind.window + 1, 0) // self._step * self._step

    def _most(self, kind: LayerKind) -> int:
        """How many keys the last query of an origin can see."""
        return (kind.window + self._step + ORIGIN_STEP - 2) // ORIGIN_STEP * ORIGIN_STEP if kind.window else WHOLE

    def _block_rows(self, tables: Ints) -> Tensor:
        return self._cache.block_rows(self._device.upload(torch.from_numpy(tables.reshape(-1))))

    def _mask(self, kind: LayerKind, seen: Ints, query: Ints) -> Tensor:
        visible = (seen <= query) & (seen > query - kind.window) if kind.window else seen <= query
        mask = torch.from_numpy(np.where(visible, np.float32(0), np.float32(-np.inf))).to(self._dtype)
        return self._device.upload(mask)


def attend(queries: Tensor, cache: Cache, layer: int, parts: list[Part], *, scale: float, out: Tensor) -> None:
    """[rows, heads, head_dim] -> `out`, [rows, kv_heads, heads / kv_heads, head_dim]: they share a key head."""
    kv_heads, group = out.shape[1:3]
    for part in parts:
        keys, values = cache.read(layer, part.block_rows, part.sequences)
        for tile in part.tiles:
            query = queries[tile.start : tile.stop].view(-1, kv_heads, group, out.shape[3])
            some, theirs = keys[:, :, tile.first : tile.last], values[:, :, tile.first : tile.last]
            if tile.mask.dim() > 2:  # noqa: PLR2004  one query per sequence: heads as queries
                result = attend_to(query, some, theirs, tile.mask, rows=tile.rows, scale=scale)
            else:
                some, theirs = (x.transpose(0, 1).expand(-1, group, -1, -1) for x in (some, theirs))
                query = query.permute(1, 2, 0, 3)  # [kv_heads, group, queries, head_dim]
                result = attend_to(query, some, theirs, tile.mask, rows=tile.rows, scale=scale).permute(2, 0, 1, 3)
            out[tile.start : tile.stop] = result


def attend_to(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, *, rows: int, scale: float) -> Tensor:
    """One call of the kernel, in so many query rows at least."""
    number = query.shape[2]
    if number < rows:
        query = functional.pad(query, (0, 0, 0, rows - number))
    result = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    return result[:, :, :number] if number < rows else result
