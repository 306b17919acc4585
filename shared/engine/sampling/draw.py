"""From logits to tokens, for a whole batch at once. Greedy rows cost one argmax.

Order: constraint, ban and bias, penalties, temperature, top-k, top-p (over what top-k left), min-p, draw. Filters are
one threshold per row, and the draw is an inverse CDF in order of token id: two tokens whose logits are nearly equal may
change places from device to device, and in this order that hardly moves the draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from shared.engine import Alternatives
from shared.engine.sampling.masks import Bits
from shared.engine.sampling.penalties import History
from shared.engine.sampling.randomness import GREEDY_BELOW, uniforms
from shared.messages import Sampling

NUCLEUS: Final = (128, 4096)
"""How many of the likeliest tokens are sorted to find a top-p threshold; only rows that need more sort all."""
BIN: Final = 256
"""Tokens per bin of the two-level inverse CDF: sums this short keep float32's precision."""


class Place(Protocol):
    """The device that holds the logits."""

    @property
    def sampling_rows(self) -> int:
        """Rows of logits worked on at once."""
        ...

    def upload(self, host: Tensor) -> Tensor:
        """Copy a small host tensor to the device, in stream order."""
        ...


@dataclass(frozen=True, slots=True)
class Draw:
    """What one row asks for."""

    sampling: Sampling
    position: int  # of the token to draw, counted from the first prompt token
    history: History | None = None  # None where no penalty is on
    banned: Sequence[int] = ()
    allowed: Bits | None = None  # of the row's tokens, as bits, lowest first; None where all are


@dataclass(frozen=True, slots=True)
class Drawn:
    """The answer to a Draw. `token_id` is -1 where the model's output is not a number."""

    token_id: int
    alternatives: Alternatives | None


def sample(logits: Tensor, draws: list[Draw], place: Place) -> list[Drawn]:
    """One token per row of `logits` [rows, vocabulary], which is overwritten."""
    result: list[Drawn] = []
    for start in range(0, len(draws), place.sampling_rows):
        some = draws[start : start + place.sampling_rows]
        result += _sample(logits[start : start + len(some)].float(), some, place)
    return result


def choose(logits: Tensor, draws: list[Draw], place: Place) -> Tensor:
    """The same tokens as a tensor [rows], int64, on the device; -1 where the model's output is not a number.

    `logits` is float32 [rows, vocabulary], of no more rows than the place works on at once, and is overwritten.
    """
    _constrain(logits, draws, place)
    _adjust(logits, draws)
    tokens = logits.argmax(-1)
    finite = torch.isfinite(logits.gather(1, tokens[:, None])[:, 0])  # argmax finds NaN first, if there is one
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature >= GREEDY_BELOW]
    if random:
        rows = torch.tensor(random, device=logits.device)
        some = logits if len(random) == len(draws) else logits[rows]
        tokens[rows] = _draw(some, [draws[row] for row in random])
    return torch.where(finite, tokens, -1)


def _sample(logits: Tensor, draws: list[Draw], place: Place) -> list[Drawn]:
    reported = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    raw = logits[torch.tensor(reported, device=logits.device)] if reported else None  # a copy, before any adjustment
    ids = choose(logits, draws, place).tolist()
    alternatives: dict[int, Alternatives] = {}
    if raw is not None:
        alternatives = dict(
            zip(reported, _alternatives(raw, [draws[r] for r in reported], [ids[r] for r in reported]), strict=True)
        )
    return [Drawn(token, alternatives.get(row)) for row, token in enumerate(ids)]


def _constrain(logits: Tensor, draws: list[Draw], place: Place) -> None:
    """Rule out what a constraint does not allow, in place, in one operation for all rows that have one."""
    places = [row for row, draw in enumerate(draws) if draw.allowed is not None]
    if not places:
        return
    bits = place.upload(torch.from_numpy(np.stack([draw.allowed for draw in draws if draw.allowed is not None])))
    barred = _eights(logits.device)[bits.int()].view(torch.bool)[:, : logits.shape[1]]
    if len(places) == len(draws):
        logits.masked_fill_(barred, -math.inf)
        return
    rows = torch.tensor(places, device=logits.device)
    logits[rows] = logits[rows].masked_fill_(barred, -math.inf)


@cache
def _eights(device: torch.device) -> Tensor:
    """By the value of a byte: whether each of its bits is unset, as eight bytes of one number: one look-up for all."""
    unset = [[not value >> bit & 1 for bit in range(8)] for value in range(256)]
    return torch.tensor(unset, device=device).view(torch.int64)[:, 0]


def _adjust(logits: Tensor, draws: list[Draw]) -> None:
    """Bans, biases and penalties, in place: all rows' affected entries as one column each."""
    rows: list[int] = []
    columns: list[int] = []
    amounts: list[float] = []
    for row, draw in enumerate(draws):
        bias = draw.sampling.logit_bias
        rows += [row] * (len(bias) + len(draw.banned))
        columns += [*bias, *draw.banned]
        amounts += [*bias.values(), *[-math.inf] * len(draw.banned)]
    if rows:
        place = (torch.tensor(rows, device=logits.device), torch.tensor(columns, device=logits.device))
        logits.index_put_(place, torch.tensor(amounts, dtype=logits.dtype, device=logits.device), accumulate=True)
    for row, draw in enumerate(draws):
        if draw.history is not None:
            _penalise(logits[row], draw.history, draw.sampling)


def _penalise(logits: Tensor, history: History, sampling: Sampling) -> None:
    ids = torch.tensor(history.ids, device=logits.device)
    counts = torch.tensor(history.counts, dtype=logits.dtype, device=logits.device)
    values = logits[ids]
    repetition = sampling.repetition_penalty
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
    logits[ids] = values


def _draw(logits: Tensor, draws: list[Draw]) -> Tensor:
    """One token per row, in proportion to the probabilities that the filters leave."""
    device = logits.device
    temperature = torch.tensor([draw.sampling.temperature for draw in draws], device=device)
    scaled = logits / temperature[:, None]
    scaled -= scaled.amax(-1, keepdim=True)  # the likeliest is 0
    threshold = _threshold(scaled, [draw.sampling for draw in draws])
    if threshold is not None:
        scaled.masked_fill_(scaled < threshold[:, None], -math.inf)
    mass = _binned(scaled.exp_())
    pairs = [uniforms(draw.sampling.seed, draw.sampling.choice, draw.position) for draw in draws]
    which, where = torch.tensor(pairs, device=device).unbind(1)
    bins = _inverse(mass.sum(-1), which)
    return bins * BIN + _inverse(mass[torch.arange(len(draws), device=device), bins], where)


def _binned(mass: Tensor) -> Tensor:
    """[rows, vocabulary] -> [rows, bins, BIN]."""
    if mass.shape[1] % BIN:
        mass = torch.nn.functional.pad(mass, (0, BIN - mass.shape[1] % BIN))
    return mass.view(len(mass), -1, BIN)


def _total(mass: Tensor) -> Tensor:
    """Per row its sum, by way of the bins: of one row alone torch would give each thread a part, in another order."""
    return _binned(mass).sum(-1).sum(-1)


def _inverse(mass: Tensor, uniform: Tensor) -> Tensor:
    """Per row, the first index at which the running sum of `mass` exceeds `uniform` times its total."""
    total = mass.cumsum(-1)
    found = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)[:, 0]
    # the product may round up to the total, past which there is no index: then the last one that has mass
    last = mass.shape[1] - 1 - (mass > 0).flip(-1).int().argmax(-1)
    return torch.minimum(found, last)


def _threshold(scaled: Tensor, samplings: list[Sampling]) -> Tensor | None:
    """Per row the least scaled logit that may be drawn, or None where no row filters. The greatest logit is 0."""
    vocabulary = scaled.shape[1]
    result = torch.tensor(
        [math.log(min(s.min_p, 1.0)) if s.min_p > 0 else -math.inf for s in samplings], device=scaled.device
    )
    open_rows = [row for row, s in enumerate(samplings) if 0 < s.top_k < vocabulary or s.top_p < 1]
    if not open_rows:
        return result if any(s.min_p > 0 for s in samplings) else None
    for width in (*NUCLEUS, vocabulary):
        some = [row for row in open_rows if samplings[row].top_k <= width]
        if some:
            rows = torch.tensor(some, device=scaled.device)
            cut, complete = _nucleus(scaled[rows], [samplings[row] for row in some], min(width, vocabulary))
            result[rows] = torch.maximum(result[rows], cut)
            done = {row for row, closed in zip(some, complete.tolist(), strict=True) if closed}
            open_rows = [row for row in open_rows if row not in done]
        if not open_rows:
            break
    return result


def _nucleus(scaled: Tensor, samplings: list[Sampling], width: int) -> tuple[Tensor, Tensor]:
    """The threshold of top-k and top-p from the `width` likeliest tokens, and whether so many were enough."""
    device = scaled.device
    best = scaled.topk(width).values  # [rows, width], descending
    limits = torch.tensor([s.top_k if s.top_k > 0 else width for s in samplings], device=device)
    unlimited = torch.tensor([s.top_k <= 0 for s in samplings], device=device)
    top_p = torch.tensor([s.top_p for s in samplings], device=device)
    kept = torch.arange(width, device=device) < limits[:, None]
    mass = best.exp().masked_fill(~kept, 0.0)
    total = torch.where(unlimited, _total(scaled.exp()), mass.sum(-1))
    share = mass.cumsum(-1) / total[:, None]
    kept &= (share - mass / total[:, None]) < top_p[:, None]  # the token that reaches top_p is still in
    kept[:, 0] = True
    cut = best.masked_fill(~kept, math.inf).amin(-1)
    complete = ~unlimited | (share[:, -1] >= top_p) | torch.tensor(width == scaled.shape[1], device=device)
    # an incomplete row is judged again with more tokens; until then nothing is cut
    return torch.where(complete, cut, -math.inf), complete


def _alternatives(raw: Tensor, draws: list[Draw], ids: list[int]) -> list[Alternatives]:
    """Log probabilities of the model itself: no bias, penalty or temperature."""
    most_likely = raw.amax(-1)
    normaliser = most_likely + _total((raw - most_likely[:, None]).exp_()).log()
    own = raw.gather(1, torch.tensor(ids, device=raw.device).clamp(min=0)[:, None])[:, 0] - normaliser
    most = min(max(draw.sampling.logprobs or 0 for draw in draws), raw.shape[1])
    best = raw.topk(most) if most else None
    likeliest = (best.values - normaliser[:, None]).tolist() if best else [[]] * len(draws)
    names = best.indices.tolist() if best else [[]] * len(draws)
    return [
        Alternatives(logprob, list(zip(names[row], likeliest[row], strict=True))[: draws[row].sampling.logprobs])
        for row, logprob in enumerate(own.tolist())
    ]
