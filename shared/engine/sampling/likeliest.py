"""The likeliest token of each row of logits: all that greedy sampling asks for."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

WIDTH: Final = 256
"""Logits in a piece of the search on the CPU."""


def likeliest(logits: Tensor) -> Tensor:
    """The token with the greatest of each row's logits, [rows], int64; -1 where that is not a number."""
    if logits.is_cpu and logits.shape[1] >= 2 * WIDTH:
        return _likeliest_by_pieces(logits)
    tokens = logits.argmax(-1)
    finite = torch.isfinite(logits.gather(1, tokens[:, None])[:, 0])  # argmax finds NaN first, if there is one
    return torch.where(finite, tokens, -1)


def _likeliest_by_pieces(logits: Tensor) -> Tensor:
    """The best piece of each row, and in it the place: on the CPU argmax goes number by number, a maximum does not.

    bfloat16 above zero is in the order of its bits, which compare four times as fast. A NaN whose sign is set is below
    zero then, and found only where all of the row is: so it is where the row's hidden state is broken.
    """
    if logits.dtype == torch.bfloat16:
        piece = _best_piece(logits.view(torch.int16))
        if (piece.values < 0).any():
            piece = _best_piece(logits)
    else:
        piece = _best_piece(logits)
    start = (piece.indices * WIDTH).clamp_(max=logits.shape[1] - WIDTH)
    some = logits.gather(1, start + torch.arange(WIDTH)).float()
    within = some.argmax(-1, keepdim=True)  # of equals the first; NaN before all
    return torch.where(torch.isfinite(some.gather(1, within)), start + within, -1)[:, 0]


class Best(NamedTuple):
    """Of each row the greatest value, and which piece has it: the first of equals, a NaN before all; [rows, 1]."""

    values: Tensor
    indices: Tensor


def _best_piece(logits: Tensor) -> Best:
    """The last one begins earlier where the vocabulary is no multiple of WIDTH: what it repeats is found before."""
    rows, vocabulary = logits.shape
    whole = vocabulary // WIDTH
    greatest = logits[:, : whole * WIDTH].view(rows, whole, WIDTH).amax(-1)
    if vocabulary % WIDTH:
        greatest = torch.cat((greatest, logits[:, -WIDTH:].amax(-1, keepdim=True)), 1)
    return Best(*greatest.max(-1, keepdim=True))
