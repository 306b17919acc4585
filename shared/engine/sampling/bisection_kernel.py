"""See bisection. The bits of a positive float order as an integer does: of -x here, so that the likelier is first."""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK: Final = 4096
WARPS: Final = 16


def least_kept(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """See bisection.Bisect."""
    rows, vocabulary = scaled.shape
    result = torch.empty(rows, device=scaled.device)
    _least_kept[(rows,)](scaled, top_k, top_p, result, vocabulary, scaled.stride(0), BLOCK, num_warps=WARPS)
    return result


@triton.jit
def _number(row: tl.tensor, vocabulary: tl.tensor, most: tl.tensor, block: tl.constexpr) -> Any:  # noqa: ANN401
    """How many of a row's keys are no greater."""
    found = tl.zeros((block,), tl.int32)
    for start in range(0, vocabulary, block):
        column = start + tl.arange(0, block)
        x = tl.load(row + column, mask=column < vocabulary, other=float("nan"))
        found += (tl.abs(x).to(tl.int32, bitcast=True) <= most).to(tl.int32)
    return tl.sum(found, 0)


@triton.jit
def _mass(row: tl.tensor, vocabulary: tl.tensor, bound: tl.tensor, block: tl.constexpr) -> Any:  # noqa: ANN401
    """What the probabilities of a row's lesser keys add up to."""
    found = tl.zeros((block,), tl.float32)
    for start in range(0, vocabulary, block):
        column = start + tl.arange(0, block)
        x = tl.load(row + column, mask=column < vocabulary, other=float("-inf"))
        found += tl.where(tl.abs(x).to(tl.int32, bitcast=True) < bound, tl.exp(x), 0.0)
    return tl.sum(found, 0)


@triton.jit
def _least_kept(
    scaled: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    result: tl.tensor,
    vocabulary: int,
    stride: int,
    block: tl.constexpr,
) -> None:
    """One program per row. `last` is the greatest key that is kept."""
    place = tl.program_id(0)
    row = scaled + place.to(tl.int64) * stride
    number = tl.load(top_k + place).to(tl.int32)
    share = tl.load(top_p + place)
    last = tl.full((), 0x7F800000, tl.int32)  # infinity: all
    if (number > 0) & (number < vocabulary):  # the least key that so many do not exceed
        low = tl.full((), 0, tl.int32)
        while low < last:
            middle = low + (last - low) // 2
            if _number(row, vocabulary, middle, block) >= number:
                last = middle
            else:
                low = middle + 1
    if share < 1:  # the greatest key before which there is less than the share; the likeliest is kept
        wanted = share * _mass(row, vocabulary, last + 1, block)
        low = tl.full((), 0, tl.int32)
        while low < last:
            middle = last - (last - low) // 2
            if _mass(row, vocabulary, middle, block) < wanted:
                low = middle
            else:
                last = middle - 1
    tl.store(result + place, -(last.to(tl.float32, bitcast=True)))
