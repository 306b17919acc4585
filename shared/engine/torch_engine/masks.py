"""Which tokens the constrained sequences of a batch may draw, as rows of bits. Imports no torch.

Computed once per step for all of them, while an accelerator still runs the model. A sequence whose language cannot be
followed any further is told apart; the others are not disturbed.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.engine.torch_engine.sequence import Run
from shared.errors import BadRequest
from shared.text.matching import Rows

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Allowed:
    """By place in the batch: the row of each constrained sequence, or why it has none."""

    rows: dict[int, Bits] = field(default_factory=dict)
    refused: dict[int, BadRequest] = field(default_factory=dict)


class Masks:
    """Makes the rows of each step."""

    def __init__(self) -> None:
        self._rows = Rows()

    def allowed(self, samples: list[Run], eos_ids: frozenset[int]) -> Allowed:
        """The rows of those that are constrained. Costs nothing where none is."""
        found = [(place, run, run.matcher) for place, run in enumerate(samples) if run.matcher is not None]
        allowed = Allowed()
        if not found:
            return allowed
        bits: Bits = np.empty((len(found), found[0][2].row_bytes), np.uint8)
        self._rows.write([matcher for _, _, matcher in found], bits.data.cast("B"))
        for (place, run, matcher), row in zip(found, bits, strict=True):
            try:
                matcher.allow(row.data, run.ends(eos_ids), run.banned(eos_ids))
                allowed.rows[place] = row
            except BadRequest as error:
                allowed.refused[place] = error
        return allowed
