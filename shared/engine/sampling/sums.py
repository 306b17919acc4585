"""Sums over a vocabulary, in an order that does not depend on how many rows there are."""

from typing import Final

import torch
from torch import Tensor

BIN: Final = 256
"""Tokens per bin of the two-level inverse CDF: sums this short keep float32's precision."""


def binned(mass: Tensor) -> Tensor:
    """[rows, vocabulary] -> [rows, bins, BIN]."""
    if mass.shape[1] % BIN:
        mass = torch.nn.functional.pad(mass, (0, BIN - mass.shape[1] % BIN))
    return mass.view(len(mass), -1, BIN)


def total(mass: Tensor) -> Tensor:
    """Per row its sum, by way of the bins: of one row alone torch would give each thread a part, in another order."""
    return binned(mass).sum(-1).sum(-1)
