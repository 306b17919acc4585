"""Top-k, top-p and min-p: per row the least logit that may still be drawn."""

import math
from typing import Final

import torch
from torch import Tensor

from shared.engine.sampling.bisection import bisection
from shared.engine.sampling.place import Place, numbers
from shared.engine.sampling.sums import total
from shared.messages import Sampling

NUCLEUS: Final = (128, 4096)
"""How many of the likeliest tokens are sorted to find a top-p threshold; only rows that need more sort all."""


def threshold(scaled: Tensor, samplings: list[Sampling], place: Place) -> Tensor | None:
    """Per row the least scaled logit that may be drawn, or None where no row filters. The greatest logit is 0."""
    least = None
    if any(s.min_p > 0 for s in samplings):
        least = numbers([math.log(min(s.min_p, 1.0)) if s.min_p > 0 else -math.inf for s in samplings], place)
    if not any(0 < s.top_k < scaled.shape[1] or s.top_p < 1 for s in samplings):
        return least
    bisect = bisection(scaled.device)
    if bisect is None:
        cut = _sorted_cut(scaled, samplings, place)
    else:
        top_k = numbers([s.top_k for s in samplings], place)
        cut = bisect(scaled, top_k, numbers([s.top_p for s in samplings], place))
    return cut if least is None else torch.maximum(cut, least)


def _sorted_cut(scaled: Tensor, samplings: list[Sampling], place: Place) -> Tensor:
    """The threshold of top-k and top-p. Waits for the device, to see whether enough tokens were sorted."""
    vocabulary = scaled.shape[1]
    result = torch.full((len(samplings),), -math.inf, device=scaled.device)
    open_rows = [row for row, s in enumerate(samplings) if 0 < s.top_k < vocabulary or s.top_p < 1]
    for width in (*NUCLEUS, vocabulary):
        some = [row for row in open_rows if samplings[row].top_k <= width]
        if some:
            rows = numbers(some, place)
            cut, complete = _nucleus(scaled[rows], [samplings[row] for row in some], min(width, vocabulary), place)
            result[rows] = cut
            done = {row for row, closed in zip(some, complete.tolist(), strict=True) if closed}
            open_rows = [row for row in open_rows if row not in done]
        if not open_rows:
            break
    return result


def _nucleus(scaled: Tensor, samplings: list[Sampling], width: int, place: Place) -> tuple[Tensor, Tensor]:
    """The threshold of top-k and top-p from the `width` likeliest tokens, and whether so many were enough."""
    best = scaled.topk(width).values  # [rows, width], descending
    limits = numbers([s.top_k if s.top_k > 0 else width for s in samplings], place)
    unlimited = numbers([s.top_k <= 0 for s in samplings], place)
    top_p = numbers([s.top_p for s in samplings], place)
    kept = torch.arange(width, device=scaled.device) < limits[:, None]
    mass = best.exp().masked_fill(~kept, 0.0)
    whole = torch.where(unlimited, total(scaled.exp()), mass.sum(-1))
    share = mass.cumsum(-1) / whole[:, None]
    kept &= (share - mass / whole[:, None]) < top_p[:, None]  # the token that reaches top_p is still in
    kept[:, 0] = True
    cut = best.masked_fill(~kept, math.inf).amin(-1)
    complete = torch.ones_like(unlimited) if width == scaled.shape[1] else ~unlimited | (share[:, -1] >= top_p)
    # an incomplete row is judged again with more tokens; until then nothing is cut
    return torch.where(complete, cut, -math.inf), complete
