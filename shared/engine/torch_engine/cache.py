"""The paged KV cache: one tensor [blocks, layers, 2, block_size, kv_heads, head_dim], block first.

Owns that tensor and every access to it. Block first, so that a sequence leaves as one gather and arrives as one
scatter, whatever the number of layers. Who owns which block is the scheduler's business.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.staging import Staging
from shared.kv.layout import KvLayout


class Cache:
    """`number` usable blocks, and block 0, which stays zero."""

    def __init__(self, layout: KvLayout, number: int, dtype: torch.dtype, device: Device) -> None:
        self.layout = layout
        self._device = device
        # zeros, because padding is read: masked out, it must still be a number
        self._blocks = torch.zeros(layout.shape(number + 1), dtype=dtype, device=device.where)
        width = layout.kv_heads * layout.head_dim
        self._by_token = self._blocks.view(-1, width)  # one row per block, layer, kind and token
        self._by_block = self._blocks.view(-1, layout.block_tokens * width)  # one row per block, layer and kind
        self._scratch = torch.empty((2, 0, layout.block_tokens * width), dtype=dtype, device=device.where)

    def token_rows(self, blocks: Tensor, offsets: Tensor) -> Tensor:
        """[2 * layers, tokens]: where each layer's keys (even rows) and values (odd rows) of the tokens are written."""
        return self.block_rows(blocks) * self.layout.block_tokens + offsets

    def block_rows(self, blocks: Tensor) -> Tensor:
        """[2 * layers, blocks]: where each layer's keys (even rows) and values (odd rows) of the blocks lie."""
        planes = 2 * self.layout.layers
        return blocks * planes + torch.arange(planes, device=blocks.device)[:, None]

    def write(self, layer: int, token_rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values [tokens, kv_heads, head_dim] of one layer."""
        self._by_token.index_copy_(0, token_rows[2 * layer], keys.flatten(1))
        self._by_token.index_copy_(0, token_rows[2 * layer + 1], values.flatten(1))

    def read(self, layer: int, block_rows: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each [sequences, kv_heads, tokens, head_dim]; valid until the next read."""
        number = block_rows.shape[1]
        if number > self._scratch.shape[1]:
            self._scratch = self._scratch.new_empty((2, number, self._scratch.shape[2]))
        keys, values = self._scratch[0, :number], self._scratch[1, :number]
        torch.index_select(self._by_block, 0, block_rows[2 * layer], out=keys)
        torch.index_select(self._by_block, 0, block_rows[2 * layer + 1], out=values)
        shape = (sequences, -1, self.layout.kv_heads, self.layout.head_dim)
        return keys.view(shape).transpose(1, 2), values.view(shape).transpose(1, 2)

    def clear(self, blocks: Sequence[int]) -> None:
        """Set blocks to zero, so that what an earlier sequence left in them is neither read nor exported."""
        if blocks:
            self._blocks.index_fill_(0, torch.tensor(blocks, device=self._device.where), 0)

    def export(self, blocks: Sequence[int], buffer: memoryview, staging: Staging | None = None) -> None:
        """Gather the blocks into the buffer, whose size is exactly theirs, or its place in the device's staging."""
        if staging is not None and staging.write(buffer, partial(self._gather, blocks)):
            return
        target = torch.frombuffer(buffer, dtype=self._blocks.dtype).view(self.layout.shape(len(blocks)))
        self._device.gather(self._blocks, torch.tensor(blocks, device=self._device.where), target)

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview, staging: Staging | None = None) -> None:
        """Scatter a buffer of so many tokens, made by `export`, into the first of `blocks`; the others become zero.

        Its bytes are taken from the device's staging where they are there.
        """
        used, over = divmod(tokens, self.layout.block_tokens)
        number = used + bool(over)
        if staging is None or not staging.read(buffer, partial(self._scatter, blocks[:number])):
            if buffer.readonly:  # torch has no read-only tensors
                buffer = memoryview(bytearray(buffer))
            source = torch.frombuffer(buffer, dtype=self._blocks.dtype).view(self.layout.shape(number))
            self._device.scatter(self._blocks, torch.tensor(blocks[:number], device=self._device.where), source)
        if over:  # beyond the last token nothing that the sender left may be read
            self._blocks[blocks[used], :, :, over:] = 0
        self.clear(blocks[number:])

    def _gather(self, blocks: Sequence[int], target: Tensor) -> None:
        index = torch.tensor(blocks, device=self._device.where)
        torch.index_select(self._blocks, 0, index, out=self._as_blocks(target, len(blocks)))

    def _scatter(self, blocks: Sequence[int], source: Tensor) -> None:
        index = torch.tensor(blocks, device=self._device.where)
        self._blocks.index_copy_(0, index, self._as_blocks(source, len(blocks)))

    def _as_blocks(self, staged: Tensor, number: int) -> Tensor:
        return staged.view(self._blocks.dtype).view(self.layout.shape(number))
