"""Rotary positions (RoFormer, arXiv 2104.09864): pairs of numbers turn by angles that grow with the position."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Rope


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """[head_dim / 2]: the angle by which each pair of numbers turns per position."""
    plain = 1.0 / (rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
    if not rope.low_freq_factor:
        return plain / rope.factor
    # llama3: long waves are stretched by the factor, short ones kept, those between are blended
    wavelength = 2 * math.pi / plain
    blend = (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * plain / rope.factor + blend * plain


@dataclass(frozen=True, slots=True)
class Rotation:
    """The cosines and sines of one step's positions, [rows, 1, head_dim] each; the sines' first half is negated."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, frequency: Tensor, dtype: torch.dtype) -> "Rotation":
        """For the positions [rows, 1, 1], as float32."""
        angles = positions * torch.cat((-frequency, frequency))
        return cls(angles.cos().to(dtype), angles.sin_().to(dtype))

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Turn [rows, heads, head_dim] into `out`, which may be x; the pairs are (i, i + head_dim / 2)."""
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, -1), self.sin, out=out)
