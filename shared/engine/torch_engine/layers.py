"""The pieces of a decoder: norms, rotary positions, attention block, feed-forward. Shapes: x is [rows, hidden]."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.activation import Activation
from shared.engine.torch_engine.architecture import Rope
from shared.engine.torch_engine.attention import Part, attend
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.linear import Linear


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm over the last dimension. A float32 weight makes the whole norm one in float32."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        wide = x.to(self.weight.dtype)
        return functional.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)


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
        """For the positions [rows]."""
        angles = positions[:, None].float() * frequency
        cos, sin = angles.cos(), angles.sin()
        return cls(torch.cat((cos, cos), -1)[:, None].to(dtype), torch.cat((-sin, sin), -1)[:, None].to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """Turn [rows, heads, head_dim]; the pairs are (i, i + head_dim / 2)."""
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, -1), self.sin)


@dataclass(frozen=True, slots=True)
class Attention:
    """Self-attention of one layer over the paged cache."""

    layer: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    project: Linear  # hidden -> queries, keys and values, side by side
    output: Linear
    query_norm: Norm | None
    key_norm: Norm | None

    def __call__(self, x: Tensor, rotation: Rotation, cache: Cache, token_rows: Tensor, parts: list[Part]) -> Tensor:
        """Write the rows' keys and values, then attend."""
        heads = self.project(x).view(x.shape[0], -1, self.head_dim)
        queries, keys, values = heads.split_with_sizes((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if self.query_norm and self.key_norm:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        cache.write(self.layer, token_rows, rotation(keys), values)
        return self.output(attend(rotation(queries), cache, self.layer, parts, self.scale))


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Gated: down(act(gate(x)) * up(x))."""

    gate_and_up: Linear  # side by side
    down: Linear
    activation: Activation

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention and feed-forward, each normalised before and, in Gemma, after, and added to what came in."""

    attention: Attention
    feed_forward: FeedForward
    attention_norm: Norm
    feed_forward_norm: Norm
    after_attention: Norm | None
    after_feed_forward: Norm | None

    def __call__(self, x: Tensor, rotation: Rotation, cache: Cache, token_rows: Tensor, parts: list[Part]) -> Tensor:
        """Both, each added to what came in."""
        added = self.attention(self.attention_norm(x), rotation, cache, token_rows, parts)
        x = x + (self.after_attention(added) if self.after_attention else added)
        added = self.feed_forward(self.feed_forward_norm(x))
        return x + (self.after_feed_forward(added) if self.after_feed_forward else added)
