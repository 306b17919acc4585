"""Weights of eight bits times rows of two digits of eight bits each, as integers, by oneDNN where it does that exactly.

A weight has one scale per output, found when it is loaded, a row one of its own, found when it comes. A sum of integers
is the same in whatever order it is made: a row's result depends neither on the other rows nor on the number of threads,
in any dtype. One digit would cost ten times the accuracy that the weights' eight bits do: a model's rows have outliers.
The second rides along as another row of the same product; few rows wait for the weights, and those are read once.
"""

from functools import cache
from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 127
"""-127 .. 127: symmetric, so that no zero point has to be subtracted."""
DIGIT: Final = 128
"""What the first digit counts of the second. A power of two: multiplying by it rounds nothing."""
TINY: Final = 1e-20
"""Stands for the peak of a row of zeros."""
OUTPUTS: Final = 8192
"""Multiplied at once: what is between the product and the result stays in the processor's cache."""


class Int8:
    """x W^T + b for a weight [outputs, inputs]; the result has the dtype of x."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._pieces = [_Piece(weight[start : start + OUTPUTS]) for start in range(0, len(weight), OUTPUTS)]
        self._outputs = len(weight)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        digits, peak = _digits(x)
        y = x.new_empty((len(x), self._outputs))
        for number, piece in enumerate(self._pieces):
            piece(digits, peak, y[:, number * OUTPUTS : (number + 1) * OUTPUTS])
        return y if self._bias is None else y.add_(self._bias)


class _Piece:
    """Some of the outputs."""

    def __init__(self, weight: Tensor) -> None:
        peak = weight.abs().amax(dim=1).float().clamp(min=TINY)  # [outputs]
        self._weight = _pack((weight * (LEVELS / peak)[:, None]).round_().to(torch.int8))
        self._scale = peak / LEVELS**2  # what one times one is, but for the row's peak
        self._zeros = torch.zeros(len(peak), dtype=torch.int32)

    def __call__(self, digits: Tensor, peak: Tensor, out: Tensor) -> None:
        """From [2 * rows, inputs] to `out` [rows, outputs]."""
        high, low = _product(digits, self._weight, self._scale, self._zeros).chunk(2)
        high.add_(low, alpha=1 / DIGIT)
        if out.dtype == torch.float32:
            torch.mul(high, peak, out=out)
        else:  # into another dtype torch multiplies at half the speed
            out.copy_(high.mul_(peak))


def _digits(x: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, inputs] -> both digits [2 * rows, inputs], the first ones first, and the rows' peaks [rows, 1]."""
    peak = x.abs().amax(-1, keepdim=True).float().clamp_(min=TINY)
    digits = torch.empty((2, *x.shape), dtype=torch.int8)
    exact = x * (LEVELS / peak)
    digits[0] = exact  # the conversion cuts off what lies behind the point
    digits[1] = exact.frac_().mul_(DIGIT)
    return digits.flatten(0, 1), peak


def _pack(weight: Tensor) -> Tensor:
    """Reorder an int8 weight [outputs, inputs] for `_product`."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _product(rows: Tensor, weight: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Integers times integers, each output times its scale, as float32."""
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, 0, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y


@cache
def multiplies_exactly() -> bool:
    """Whether this torch and this processor multiply int8 without saturating between, which those before VNNI do.

    Tried with the greatest numbers, in few and in many rows.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-LEVELS, LEVELS + 1, (96, 320), generator=generator, dtype=torch.int8)
    rows = torch.randint(-LEVELS, LEVELS + 1, (80, 320), generator=generator, dtype=torch.int8)
    weight[:16], rows[::3] = LEVELS, LEVELS
    weight[16:32], rows[1::3] = -LEVELS, -LEVELS
    exact = (rows.double() @ weight.double().T).float()
    ones, zeros = torch.ones(96), torch.zeros(96, dtype=torch.int32)
    try:
        packed = _pack(weight)
        return all(
            torch.equal(_product(rows[:number], packed, ones, zeros), exact[:number])
            for number in (1, 2, 5, 16, 33, 80)
        )
    except (RuntimeError, NotImplementedError):  # built without, or for another kind of processor
        return False
