"""Lanes of one length: what each of several decoding sequences sees, side by side as the attention kernel reads it.

Owns these tensors. Which sequence has which lane is for `lanes.py` to say.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.attention import Geometry, Ints, Span, attend_to
from shared.engine.torch_engine.cache import Cache


class Plane(NamedTuple):
    """One layer's part of a bank."""

    rows: Tensor  # [2 * lanes * kv_heads * keys, head_dim]: where single keys and values are written
    keys: Tensor  # [lanes, kv_heads, keys, head_dim], of the lanes in use
    values: Tensor


class Bank:
    """Lanes of `keys` keys, for the layers of one kind. Those in use come first."""

    def __init__(
        self, kind: LayerKind, layers: list[int], keys: int, cache: Cache, *, geometry: Geometry, dtype: torch.dtype
    ) -> None:
        self.kind = kind
        self.keys = keys
        self.planes: dict[int, Plane] = {}
        self.mask = torch.empty((0, 1, 1, keys), dtype=dtype)  # of the lanes in use
        self._cache = cache
        self._geometry = geometry
        layout = cache.layout
        self._masks = torch.empty((0, keys), dtype=dtype)
        self._tensors = {
            layer: torch.empty((2, 0, layout.kv_heads, keys, layout.head_dim), dtype=dtype) for layer in layers
        }

    @property
    def capacity(self) -> int:
        """Lanes that there is memory for."""
        return len(self._masks)

    def resize(self, lanes: int) -> None:
        """Have memory for so many, as many as are in use or more."""
        kept = min(lanes, self.capacity)
        for layer, old in self._tensors.items():
            new = self._tensors[layer] = old.new_empty((2, lanes, *old.shape[2:]))
            new[:, :kept] = old[:, :kept]
        masks, self._masks = self._masks, self._masks.new_empty((lanes, self.keys))
        self._masks[:kept] = masks[:kept]

    def use(self, lanes: int) -> None:
        """Let steps have the first so many lanes."""
        self.mask = self._masks[:lanes, None, None]
        self.planes = {
            layer: Plane(both.view(-1, both.shape[-1]), both[0, :lanes], both[1, :lanes])
            for layer, both in self._tensors.items()
        }

    def fill(self, lanes: list[int], spans: list[Span], origins: Ints, positions: Ints) -> None:
        """Copy from the cache what the sequences see from the origins on, and the zeros beyond: all of the lanes.

        They are read whole, and what is masked out must still be a number.
        """
        row = lanes[-1] - lanes[0] == len(lanes) - 1  # a copy to neighbours is shared by the threads
        index = slice(lanes[0], lanes[-1] + 1) if row else torch.tensor(lanes)
        tables = self._geometry.tables(spans, origins, self.keys)
        for layer, both in self._tensors.items():
            for target, source in zip(both, self._cache.read(layer, tables, len(lanes)), strict=True):
                target[index] = source[:, :, : self.keys]
        self._masks[index] = self._geometry.visible(self.kind, origins, self.keys, positions)

    def move(self, source: int, target: int) -> None:
        """Copy a lane over another."""
        for both in self._tensors.values():
            both[:, target] = both[:, source]
        self._masks[target] = self._masks[source]

    def advance(self, at: Tensor) -> Tensor:
        """Show each lane's query its own key, `at` so many keys [lanes] from the lane's beginning.

        Returns where the step's keys and values go: [lanes, 2 * kv_heads], in a plane's rows.
        """
        numbers = torch.arange(len(at))
        shown = numbers * self.keys + at
        masks = self._masks.view(-1)
        masks.index_fill_(0, shown, 0.0)
        window = self.kind.window
        if window:
            past = at >= window
            masks.index_fill_(0, (shown - window)[past], -torch.inf)
        kv_heads = self._cache.layout.kv_heads
        heads = torch.arange(kv_heads) * self.keys
        keys = numbers[:, None] * (kv_heads * self.keys) + at[:, None] + heads
        return torch.cat((keys, keys + self.capacity * kv_heads * self.keys), 1)


@dataclass(frozen=True, slots=True)
class Abreast:
    """A bank's part in one step: rows [start, stop) of it, or, where they are in another order, `rows`."""

    bank: Bank
    start: int
    stop: int
    rows: Tensor | None
    places: Tensor  # see Bank.advance
    padded: int  # see attend_to

    def attend(self, layer: int, heads: Tensor, queries: int, scale: float) -> Tensor:
        """Store the rows' keys and values, attend: [lanes, kv_heads, queries / kv_heads, head_dim]."""
        if self.rows is not None:
            heads = heads.index_select(0, self.rows)
        elif self.stop - self.start < len(heads):
            heads = heads[self.start : self.stop]
        plane = self.bank.planes[layer]
        plane.rows.index_put_((self.places,), heads[:, queries:])
        query = heads[:, :queries].view(len(heads), plane.keys.shape[1], -1, heads.shape[2])
        return attend_to(query, plane.keys, plane.values, self.bank.mask, rows=self.padded, scale=scale)
