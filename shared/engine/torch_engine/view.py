"""What a step's rows see of the cache, behind one interface: which kernel attends is the device's business.

A `Layout` turns a plan into a `Batch`, with one `View` per kind of layer; a layer hands its projected heads to the view
and gets back what they attended to. `gathered.py` is the form for every device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.norms import Norm
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run


class HeadNorms(NamedTuple):
    """Norms over one head's numbers, before positions are turned in."""

    query: Norm
    key: Norm


class View(Protocol):
    """One step and one kind of layer: made once, used by all layers of the kind."""

    def attend(self, layer: int, heads: Tensor, norms: HeadNorms | None, scale: float) -> Tensor:
        """Turn the positions in, store keys and values, attend.

        `heads` [rows, heads + 2 * kv_heads, head_dim] are queries, keys and values side by side, and may be
        overwritten. The result is [rows, heads * head_dim].
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of `Model.forward`. `samples` says whose next token each of the rows `sampled` decides."""

    tokens: Tensor  # [rows]
    views: Mapping[LayerKind, View]
    sampled: Tensor | None  # [samples] rows; None: all of them, in order
    samples: list[Run]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a step has computed for its draws."""

    logits: Tensor  # [rows, vocabulary], a row per sample; further ones are padding
    samples: list[Run]
    batch: Batch  # whose samples may be missing
    greedy: Tensor | None = None  # [rows]: the likeliest tokens, where they are known and handed on already


class Layout(Protocol):
    """Lays steps out for one cache on one device."""

    def batch(self, plan: Plan) -> Batch:
        """The arrays of a plan, decoding sequences first; their order is the layout's own."""
        ...

    def keep(self, batch: Batch, drawn: Tensor) -> None:
        """Hand on the tokens drawn for the batch, [samples] on the device, in stream order.

        The next batch takes from them what a sequence computes of which the host does not know the token yet.
        """
        ...
