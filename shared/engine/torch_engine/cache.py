"""The paged KV cache: one tensor [blocks, layers, 2, block_size, kv_heads, head_dim], block first.

Owns that tensor and every access to it. Block first, so that a sequence leaves as one gather and arrives as one
scatter, whatever the number of layers. Who owns which block is the scheduler's business.
"""

from array import array
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.passage import Passage, words
from shared.engine.torch_engine.staging import Staging
from shared.kv.layout import KvLayout


class Cache:
    """`number` usable blocks, and block 0, which stays zero."""

    def __init__(self, layout: KvLayout, number: int, dtype: torch.dtype, device: Device) -> None:
        self.layout = layout
        self._device = device
        # zeros, because padding is read: masked out, it must still be a number
        self._blocks = torch.zeros(layout.shape(number + 1), dtype=dtype, device=device.where)
        self._rows = words(self._blocks)  # one row per block
        self._passage = Passage(self._rows) if device.where.type == "cuda" else None
        width = layout.kv_heads * layout.head_dim
        by_token = self._blocks.view(-1, width)  # one row per block, layer, kind and token
        by_block = self._blocks.view(-1, layout.block_tokens * width)  # one row per block, layer and kind
        # each layer's begin with the keys of its block 0, so that one index serves them all
        self._by_token = [by_token[2 * layer * layout.block_tokens :] for layer in range(layout.layers)]
        self._by_block = [by_block[2 * layer :] for layer in range(layout.layers)]
        self._scratch = by_block.new_empty((0, by_block.shape[1]))

    @property
    def number(self) -> int:
        """Of usable blocks."""
        return self._blocks.shape[0] - 1

    def plane(self, layer: int) -> Tensor:
        """Where one layer's keys and values lie: [blocks, 2, block_size, kv_heads, head_dim]."""
        return self._blocks[:, layer]

    def token_rows(self, blocks: Tensor, offsets: Tensor) -> Tensor:
        """[tokens, 2]: where a layer's keys and values of the tokens are written."""
        keys = blocks * (2 * self.layout.layers * self.layout.block_tokens) + offsets
        return torch.stack((keys, keys + self.layout.block_tokens), 1)

    def block_rows(self, blocks: Tensor) -> Tensor:
        """[2 * blocks]: where a layer's keys of the blocks lie, then its values."""
        keys = blocks * (2 * self.layout.layers)
        return torch.cat((keys, keys + 1))

    def write(self, layer: int, token_rows: Tensor, pairs: Tensor) -> None:
        """Store one layer's keys and values, side by side: [tokens, 2 * kv_heads, head_dim]."""
        self._by_token[layer].index_put_((token_rows,), pairs.view(len(pairs), 2, -1))

    def read(self, layer: int, block_rows: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each [sequences, kv_heads, tokens, head_dim]; valid until the next read."""
        number = len(block_rows)
        if number > len(self._scratch):
            self._scratch = self._scratch.new_empty((number, self._scratch.shape[1]))
        both = torch.index_select(self._by_block[layer], 0, block_rows, out=self._scratch[:number])
        both = both.view(2, sequences, -1, self.layout.kv_heads, self.layout.head_dim).transpose(2, 3)
        return both[0], both[1]

    def clear(self, blocks: Sequence[int]) -> None:
        """Set blocks to zero, so that what an earlier sequence left in them is neither read nor exported."""
        if blocks:
            self._blocks.index_fill_(0, self._index(blocks), 0)

    def export(self, blocks: Sequence[int], buffer: memoryview, staging: Staging | None = None) -> None:
        """Gather the blocks into the buffer, whose size is exactly theirs, or its place in the device's staging."""
        if staging is not None and staging.write(buffer, partial(self.gather, blocks)):
            return
        index = self._index(blocks)
        if self._passage is not None:
            self._passage.gather(index, buffer)
        else:
            self._device.gather(self._rows, index, self._as_rows(buffer, len(blocks)))

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview, staging: Staging | None = None) -> None:
        """Scatter a buffer of so many tokens, made by `export`, into the first of `blocks`; the others become zero.

        Its bytes are taken from the device's staging where they are there.
        """
        used, over = divmod(tokens, self.layout.block_tokens)
        number = used + bool(over)
        if staging is None or not staging.read(buffer, partial(self.scatter, blocks[:number])):
            if buffer.readonly:  # torch has no read-only tensors
                buffer = memoryview(bytearray(buffer))
            index = self._index(blocks[:number])
            if self._passage is not None:
                self._passage.scatter(index, buffer)
            else:
                self._device.scatter(self._rows, index, self._as_rows(buffer, number))
        if over:  # beyond the last token nothing that the sender left may be read
            self._blocks[blocks[used], :, :, over:] = 0
        self.clear(blocks[number:])

    def gather(self, blocks: Sequence[int], target: Tensor) -> None:
        """Copy the blocks to one piece of the device's memory, uint8 [bytes], in stream order."""
        index = self._index(blocks)
        torch.index_select(self._rows, 0, index, out=target.view(self._rows.dtype).view(len(blocks), -1))

    def scatter(self, blocks: Sequence[int], source: Tensor) -> None:
        """Set the blocks from one piece of the device's memory, uint8 [bytes], in stream order."""
        index = self._index(blocks)
        self._rows.index_copy_(0, index, source.view(self._rows.dtype).view(len(blocks), -1))

    def _as_rows(self, buffer: memoryview, number: int) -> Tensor:
        return torch.frombuffer(buffer, dtype=self._rows.dtype).view(number, -1)

    def _index(self, blocks: Sequence[int]) -> Tensor:
        """The numbers on the device. By way of an array: torch reads a list of a thousand eight times as slowly."""
        return self._device.upload(torch.frombuffer(array("q", blocks), dtype=torch.int64))
