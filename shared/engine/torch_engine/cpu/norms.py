"""The RMS norm on the CPU, where torch's own is eight operations. Steady: row by row, of exact operations and sums."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ShortNorm:
    """See Norm; computed in float32. A weight [heads, size] is one per head."""

    weight: Tensor
    eps: float
    _wide: Tensor = field(init=False)
    _eps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wide", self.weight.float())
        object.__setattr__(self, "_eps", torch.tensor(self.eps))

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (wide * inverse).mul_(self._wide).to(x.dtype)

    def added(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Add, then apply it."""
        both = x + more
        return both, self(both)


def beside(norms: Sequence[ShortNorm], heads: Sequence[int]) -> ShortNorm:
    """One norm for [rows, heads, size], where so many heads have each of these."""
    weight = torch.cat([one.weight.expand(number, -1) for one, number in zip(norms, heads, strict=True)])
    return ShortNorm(weight, norms[0].eps)
