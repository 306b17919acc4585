"""Which tokens the constrained sequences of a batch may draw, as rows of bits. Imports no torch.

Computed once per step for all of them, while an accelerator still runs the model. A sequence whose language cannot be
followed any further is told apart; the others are not disturbed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadRequest
from shared.text.matching import Matcher, Rows

Bits = NDArray[np.uint8]


class Bound(NamedTuple):
    """A text that must belong to a language, at its next token."""

    matcher: Matcher  # where the text stands in the language
    ends: Collection[int]  # tokens that end the text
    banned: Collection[int]  # tokens that may not come now, if others can


@dataclass(frozen=True, slots=True)
class Allowed:
    """By place in the batch: the row of each constrained sequence, or why it has none."""

    rows: dict[int, Bits] = field(default_factory=dict)
    refused: dict[int, BadRequest] = field(default_factory=dict)


class Masks:
    """Makes the rows of each step."""

    def __init__(self) -> None:
        self._rows = Rows()

    def allowed(self, bound: Mapping[int, Bound]) -> Allowed:
        """The rows of those that are constrained, by their places in the batch. Costs nothing where none is."""
        allowed = Allowed()
        if not bound:
            return allowed
        matchers = [one.matcher for one in bound.values()]
        bits: Bits = np.empty((len(matchers), matchers[0].row_bytes), np.uint8)
        self._rows.write(matchers, bits.data.cast("B"))
        for (place, one), row in zip(bound.items(), bits, strict=True):
            try:
                one.matcher.allow(row.data, one.ends, one.banned)
                allowed.rows[place] = row
            except BadRequest as error:
                allowed.refused[place] = error
        return allowed
