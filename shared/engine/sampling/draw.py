"""From logits to tokens, for a whole batch at once. Greedy rows cost one argmax.

Order: constraint, ban and bias, penalties, temperature, top-k, top-p (over what top-k left), min-p, draw. Filters are
one threshold per row, and the draw is an inverse CDF in order of token id: two tokens whose logits are nearly equal may
change places from device to device, and in this order that hardly moves the draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shared.engine import Alternatives
from shared.engine.sampling.filters import threshold
from shared.engine.sampling.likeliest import likeliest
from shared.engine.sampling.masks import Bits
from shared.engine.sampling.penalties import History
from shared.engine.sampling.place import Place, numbers
from shared.engine.sampling.randomness import GREEDY_BELOW, uniforms
from shared.engine.sampling.sums import BIN, binned, total
from shared.messages import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """What one row asks for."""

    sampling: Sampling
    position: int  # of the token to draw, counted from the first prompt token
    history: History | None = None  # None where no penalty is on
    banned: Sequence[int] = ()
    allowed: Bits | None = None  # of the row's tokens, as bits, lowest first; None where all are


class Likelihoods(NamedTuple):
    """Log probabilities of the model itself, of some rows, on the device: no bias, penalty or temperature."""

    values: Tensor  # [rows, 1 + most]: of the drawn token, then of the likeliest ones, best first
    names: Tensor  # [rows, most]: which tokens these are


class Samples(NamedTuple):
    """One token per row, on the device."""

    tokens: Tensor  # [rows], int64; -1 where the model's output is not a number
    reported: list[int]  # rows whose log probabilities are asked for
    likelihoods: Likelihoods | None  # of these rows


def sample(logits: Tensor, draws: list[Draw], place: Place) -> Samples:
    """Draw for each row of `logits` [rows, vocabulary], which may be overwritten. Does not wait for the device."""
    reported = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    most = min(max((draws[row].sampling.logprobs or 0 for row in reported), default=0), logits.shape[1])
    step = place.sampling_rows
    parts = [
        _sample(logits[start : start + step].float(), draws[start : start + step], most, place)
        for start in range(0, len(draws), step)
    ]
    tokens = torch.cat([tokens for tokens, _ in parts])
    told = [likelihoods for _, likelihoods in parts if likelihoods is not None]
    return Samples(tokens, reported, Likelihoods(*map(torch.cat, zip(*told, strict=True))) if told else None)


def choose(logits: Tensor, draws: list[Draw], place: Place) -> Tensor:
    """Only the tokens.

    `logits` is float32 [rows, vocabulary], of no more rows than the place works on at once, and is overwritten.
    """
    _constrain(logits, draws, place)
    _adjust(logits, draws, place)
    tokens = likeliest(logits)
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature >= GREEDY_BELOW]
    if random:
        rows = numbers(random, place)
        some = logits if len(random) == len(draws) else logits[rows]
        drawn = _draw(some, [draws[row] for row in random], place)
        tokens[rows] = torch.where(tokens[rows] < 0, -1, drawn)
    return tokens


def alternatives(values: list[float], names: list[int], draw: Draw) -> Alternatives:
    """What a row's likelihoods say, as it asked for them."""
    return Alternatives(values[0], list(zip(names, values[1:], strict=True))[: draw.sampling.logprobs])


def _sample(logits: Tensor, draws: list[Draw], most: int, place: Place) -> tuple[Tensor, Likelihoods | None]:
    reported = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    if not reported:
        return choose(logits, draws, place), None
    rows = numbers(reported, place)
    raw = logits[rows]  # a copy, before any adjustment
    tokens = choose(logits, draws, place)
    return tokens, _likelihoods(raw, tokens[rows], most)


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
    rows = numbers(places, place)
    logits[rows] = logits[rows].masked_fill_(barred, -math.inf)


@cache
def _eights(device: torch.device) -> Tensor:
    """By the value of a byte: whether each of its bits is unset, as eight bytes of one number: one look-up for all."""
    unset = [[not value >> bit & 1 for bit in range(8)] for value in range(256)]
    return torch.tensor(unset, device=device).view(torch.int64)[:, 0]


def _adjust(logits: Tensor, draws: list[Draw], place: Place) -> None:
    """Bans, biases and penalties, in place: all rows' affected entries as one column each."""
    rows: list[int] = []
    columns: list[int] = []
    amounts: list[float] = []
    for row, draw in enumerate(draws):
        bias = draw.sampling.logit_bias
        if bias or draw.banned:
            rows += [row] * (len(bias) + len(draw.banned))
            columns += [*bias, *draw.banned]
            amounts += [*bias.values(), *[-math.inf] * len(draw.banned)]
    if rows:
        where = place.upload(torch.tensor((rows, columns))).unbind(0)
        logits.index_put_(where, place.upload(torch.tensor(amounts, dtype=logits.dtype)), accumulate=True)
    penalised = [(row, draw.history, draw.sampling) for row, draw in enumerate(draws) if draw.history is not None]
    if penalised:
        _penalise(logits, penalised, place)


def _penalise(logits: Tensor, penalised: list[tuple[int, History, Sampling]], place: Place) -> None:
    """All rows' tokens as one column, with the penalties of each."""
    lengths = torch.tensor([len(history.ids) for _, history, _ in penalised])
    columns = torch.from_numpy(np.concatenate([np.array(history.ids) for _, history, _ in penalised]))
    rows = torch.tensor([row for row, _, _ in penalised]).repeat_interleave(lengths)
    counts = torch.from_numpy(np.concatenate([np.array(history.counts) for _, history, _ in penalised]))
    asked = [(s.repetition_penalty, s.frequency_penalty, s.presence_penalty) for _, _, s in penalised]
    each = torch.tensor(asked, dtype=logits.dtype).repeat_interleave(lengths, 0)
    subtracted = each[:, 1] * counts + each[:, 2] * (counts > 0)
    where = place.upload(torch.stack((rows, columns))).unbind(0)
    repetition, subtracted = place.upload(torch.stack((each[:, 0], subtracted))).unbind(0)
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits.index_put_(where, values - subtracted)


def _draw(logits: Tensor, draws: list[Draw], place: Place) -> Tensor:
    """One token per row, in proportion to the probabilities that the filters leave."""
    asked = [
        (draw.sampling.temperature, *uniforms(draw.sampling.seed, draw.sampling.choice, draw.position))
        for draw in draws
    ]
    temperature, which, where = numbers(asked, place).unbind(1)
    scaled = logits / temperature[:, None]
    scaled -= scaled.amax(-1, keepdim=True)  # the likeliest is 0
    least = threshold(scaled, [draw.sampling for draw in draws], place)
    if least is not None:
        scaled.masked_fill_(scaled < least[:, None], -math.inf)
    mass = binned(scaled.exp_())
    bins = _inverse(mass.sum(-1), which.contiguous())
    return bins * BIN + _inverse(mass[torch.arange(len(draws), device=logits.device), bins], where.contiguous())


def _inverse(mass: Tensor, uniform: Tensor) -> Tensor:
    """Per row, the first index at which the running sum of `mass` exceeds `uniform` times its total."""
    running = mass.cumsum(-1)
    found = torch.searchsorted(running, uniform[:, None] * running[:, -1:], right=True)[:, 0]
    # the product may round up to the total, past which there is no index: then the last one that has mass
    last = mass.shape[1] - 1 - (mass > 0).flip(-1).int().argmax(-1)
    return torch.minimum(found, last)


def _likelihoods(raw: Tensor, tokens: Tensor, most: int) -> Likelihoods:
    greatest = raw.amax(-1)
    normaliser = greatest + total((raw - greatest[:, None]).exp_()).log()
    best = raw.topk(most)
    own = raw.gather(1, tokens.clamp(min=0)[:, None])
    return Likelihoods(torch.cat((own, best.values), 1) - normaliser[:, None], best.indices)
