"""One step and one kind of layer as the paged kernels see it: two of them a layer, three where prompts are computed."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from shared.engine.torch_engine.cuda.decode_kernels import decode_attention
from shared.engine.torch_engine.cuda.head_kernel import place_heads
from shared.engine.torch_engine.cuda.memory import Memory
from shared.engine.torch_engine.cuda.prompt_kernel import prompt_attention
from shared.engine.torch_engine.cuda.shapes import LOG2_E, Cut, power_of_two
from shared.engine.torch_engine.view import HeadNorms

HEADS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class PagedView:
    """See View. Rows below `alone` are attended one by one, the others in tiles. Nothing here is read on the host."""

    memory: Memory
    window: int
    turns: Tensor  # [rows, 2, head_dim / 2]
    positions: Tensor  # [rows], below 0 for padding
    slots: Tensor  # [rows]
    places: Tensor  # [rows]
    alone: int
    tiles: Tensor  # [tiles, 2], see `prompt_attention`
    cut: Cut  # of the tiles
    early: bool  # see starts_early

    def attend(self, layer: int, heads: Tensor, norms: HeadNorms | None, scale: float) -> Tensor:
        """See View."""
        self._place(layer, heads, norms)
        h = self.memory.heads
        out = heads.new_empty((heads.shape[0], h.heads * h.head_dim))
        if self.alone:
            self._attend_alone(layer, heads, out, scale * LOG2_E)
        if self.tiles.shape[0]:
            self._attend_in_tiles(layer, heads, out, scale * LOG2_E)
        return out

    def _place(self, layer: int, heads: Tensor, norms: HeadNorms | None) -> None:
        h, plane = self.memory.heads, self.memory.planes[layer]
        place_heads[(heads.shape[0], -(-heads.shape[1] // HEADS_AT_ONCE))](
            heads,
            self.turns,
            self.places,
            norms.query.weight if norms else heads,
            norms.key.weight if norms else heads,
            plane,
            plane.stride(0),
            norms.query.eps if norms else 0.0,
            norms.key.eps if norms else 0.0,
            h.heads,
            h.kv_heads,
            h.head_dim,
            power_of_two(h.head_dim // 2),
            h.block_size,
            HEADS_AT_ONCE,
            norms is not None,
            self.early,
            launch_pdl=self.early,
        )

    def _attend_alone(self, layer: int, heads: Tensor, out: Tensor, scale: float) -> None:
        memory, plane = self.memory, self.memory.planes[layer]
        h = memory.heads
        cut = h.decode(heads.dtype)
        splits = h.splits(self.alone, memory.processors)
        partial = (self.alone, h.kv_heads, splits, h.group) if splits > 1 else (0,)
        decode_attention[(self.alone, h.kv_heads, splits)](
            heads,
            self.positions,
            self.slots,
            memory.table,
            plane,
            out,
            heads.new_empty((*partial, h.head_dim), dtype=torch.float32),
            heads.new_empty(partial, dtype=torch.float32),
            memory.arrivals,
            plane.stride(0),
            memory.table.stride(0),
            scale,
            h.heads,
            h.kv_heads,
            h.head_dim,
            h.width,
            h.block_size,
            self.window,
            splits,
            cut.rows,
            h.members,
            cut.keys,
            h.parts(splits),
            self.early,
            num_warps=cut.warps,
            num_stages=cut.stages,
            launch_pdl=self.early,
        )

    def _attend_in_tiles(self, layer: int, heads: Tensor, out: Tensor, scale: float) -> None:
        memory, plane = self.memory, self.memory.planes[layer]
        h = memory.heads
        prompt_attention[(h.kv_heads, self.tiles.shape[0])](
            heads,
            self.positions,
            self.slots,
            self.tiles,
            memory.table,
            plane,
            out,
            plane.stride(0),
            memory.table.stride(0),
            scale,
            h.heads,
            h.kv_heads,
            h.head_dim,
            h.width,
            h.block_size,
            self.window,
            self.cut.rows,
            self.cut.keys,
            self.early,
            num_warps=self.cut.warps,
            num_stages=self.cut.stages,
            launch_pdl=self.early,
        )
