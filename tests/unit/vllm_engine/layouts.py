"""KV tensors of one rank in the layouts that vLLM's versions and devices have, from the KV of a whole model.

The whole model's KV of a layer is `[blocks, heads, halves, tokens, size]`; what a rank gets is laid out by `LAYOUTS`.
Independent of the code under test: it is written from the layouts, not from the axes that the code names.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from shared.engine.vllm_engine.geometry import share
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.tensors import KvTensor, kv_tensors
from shared.engine.vllm_engine.notes import Plan, Registered

BLOCK = 8
HEAD = 3


class Layout(NamedTuple):
    """`lay` turns [layers][blocks, heads, 2, tokens, size] into what register_kv_caches gets, per layer."""

    lay: Callable[[list[Tensor]], list[Tensor | tuple[Tensor, ...]]]
    heads: bool = True  # split over ranks


def views_of_one(layers: list[Tensor]) -> list[Tensor]:
    """0.32: [B, H, N, K|V], every layer a strided view of one allocation, block-outermost: a hard case of strides."""
    whole = torch.stack([torch.cat((kv[:, :, 0], kv[:, :, 1]), dim=-1) for kv in layers], dim=1).contiguous()
    return [whole[:, layer] for layer in range(len(layers))]


def token_outermost(layers: list[Tensor]) -> list[Tensor]:
    """0.32 with heads inside tokens in memory (LBNHC), seen as [B, H, N, K|V]."""
    found = views_of_one(layers)
    return [one.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3) for one in found]


def small_kernel_blocks(layers: list[Tensor]) -> list[Tensor]:
    """The kernel's blocks are half as long as the manager's."""
    found = []
    for kv in layers:
        b, h, two, n, c = kv.shape
        halves = kv.reshape(b, h, two, 2, n // 2, c).permute(0, 3, 1, 2, 4, 5).reshape(b * 2, h, two, n // 2, c)
        found.append(torch.cat((halves[:, :, 0], halves[:, :, 1]), dim=-1).contiguous())
    return found


LAYOUTS: dict[str, Layout] = {
    "0.32": Layout(lambda layers: [torch.cat((kv[:, :, 0], kv[:, :, 1]), -1).contiguous() for kv in layers]),
    "0.32 views of one allocation": Layout(views_of_one),
    "0.32 tokens outermost": Layout(token_outermost),
    "0.32 small kernel blocks": Layout(small_kernel_blocks),
    "0.23 CUDA": Layout(lambda layers: [kv.permute(0, 2, 3, 1, 4).contiguous() for kv in layers]),
    "0.23 CUDA, heads outermost in memory": Layout(
        lambda layers: [kv.permute(0, 2, 1, 3, 4).contiguous().permute(0, 1, 3, 2, 4) for kv in layers]
    ),
    "Ascend": Layout(
        lambda layers: [tuple(kv[:, :, half].permute(0, 2, 1, 3).contiguous() for half in (0, 1)) for kv in layers]
    ),
    "Ascend MLA": Layout(
        lambda layers: [(kv[:, :1, 0].permute(0, 2, 1, 3).contiguous(), kv[:, 0, 1, :, :1].clone()) for kv in layers],
        heads=False,
    ),
    "MLA": Layout(lambda layers: [kv[:, 0, 0].clone() for kv in layers], heads=False),
    "MLA 0.32": Layout(lambda layers: [kv[:, :1, 0].clone() for kv in layers], heads=False),
}


def tensors_of(layout: Layout, model: list[Tensor], rank: int, ranks: int) -> list[KvTensor]:
    """What one rank registers of a whole model's KV."""
    heads = model[0].shape[1]
    part = share(heads if layout.heads else 1, rank, ranks)
    mine = [kv[:, part.first : part.first + part.count] if layout.heads else kv for kv in model]
    names = [f"model.layers.{layer}.attn" for layer in range(len(model))]
    layers = dict(zip(names, layout.lay(mine), strict=True))
    return kv_tensors(layers, model[0].shape[0], BLOCK, dict.fromkeys(names, part))


def registered(rank: int, ranks: int, blocks: int) -> Registered:
    """Without its parts: a rank adds them."""
    return Registered(rank, ranks, 0, blocks, BLOCK, [], "test")


class Wire:
    """A Line to a worker that has its plan ready."""

    def __init__(self) -> None:
        self.notes: list[object] = []
        self.answer: Plan | None = None

    def send(self, note: object) -> None:
        self.notes.append(note)

    def plan(self, seconds: float) -> Plan:
        assert self.answer is not None
        return self.answer


def model(heads: int, blocks: int, layers: int = 2, dtype: torch.dtype = torch.int16, seed: int = 0) -> list[Tensor]:
    """Numbers that are all different, or floats from them."""
    shape = (blocks, heads, 2, BLOCK, HEAD)
    count = blocks * heads * 2 * BLOCK * HEAD
    found = []
    for layer in range(layers):
        numbers = torch.randperm(count, generator=torch.Generator().manual_seed(seed + layer)) % 32000
        found.append(numbers.to(torch.int16).reshape(shape).view(dtype))
    return found


__all__ = ["BLOCK", "LAYOUTS", "Layout", "Rank", "Wire", "model", "registered", "tensors_of"]
