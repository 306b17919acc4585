"""The pieces of a decoder: attention block and feed-forward. Shapes: x is [rows, hidden]."""

from dataclasses import dataclass

from torch import Tensor

from shared.engine.torch_engine.activation import Gate
from shared.engine.torch_engine.linear import Linear
from shared.engine.torch_engine.norms import Norm
from shared.engine.torch_engine.view import HeadNorms, View


@dataclass(frozen=True, slots=True)
class Attention:
    """Self-attention of one layer over the paged cache."""

    layer: int
    head_dim: int
    scale: float
    project: Linear  # hidden -> queries, keys and values, side by side
    output: Linear
    norms: HeadNorms | None

    def __call__(self, x: Tensor, view: View) -> Tensor:
        """Write the rows' keys and values, then attend."""
        heads = self.project(x).view(x.shape[0], -1, self.head_dim)
        return self.output(view.attend(self.layer, heads, self.norms, self.scale))


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Gated: down(act(gate(x)) * up(x))."""

    gate_and_up: Linear  # side by side
    down: Linear
    gate: Gate

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.down(self.gate(self.gate_and_up(x)))


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention and feed-forward, each normalised before and, in Gemma, after, and added to what came in.

    What a layer adds at last is handed on beside x, so that the next norm can add it in the same pass.
    """

    attention: Attention
    feed_forward: FeedForward
    attention_norm: Norm
    feed_forward_norm: Norm
    after_attention: Norm | None
    after_feed_forward: Norm | None

    def __call__(self, x: Tensor, more: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        """From x + more to another such pair."""
        x, normed = (x, self.attention_norm(x)) if more is None else self.attention_norm.added(x, more)
        more = self.attention(normed, view)
        x, normed = self.feed_forward_norm.added(x, self.after_attention(more) if self.after_attention else more)
        more = self.feed_forward(normed)
        return x, self.after_feed_forward(more) if self.after_feed_forward else more
