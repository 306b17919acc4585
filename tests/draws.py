"""Draws, read at once."""

from typing import NamedTuple

from torch import Tensor

from shared.engine import Alternatives
from shared.engine.sampling import draw
from shared.engine.sampling.draw import Draw, alternatives
from shared.engine.sampling.place import Place


class Drawn(NamedTuple):
    """What came for one row."""

    token_id: int
    alternatives: Alternatives | None


def sample(logits: Tensor, draws: list[Draw], place: Place) -> list[Drawn]:
    """As shared.engine.sampling.draw.sample, for the host."""
    samples = draw.sample(logits, draws, place)
    told: dict[int, Alternatives] = {}
    if samples.likelihoods is not None:
        values, names = samples.likelihoods
        rows = zip(samples.reported, values.tolist(), names.tolist(), strict=True)
        told = {row: alternatives(numbers, ids, draws[row]) for row, numbers, ids in rows}
    return [Drawn(token, told.get(row)) for row, token in enumerate(samples.tokens.tolist())]
