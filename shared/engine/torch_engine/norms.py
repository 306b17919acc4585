"""RMS norms, alone and together with the addition before them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.cpu.norms import ShortNorm
from shared.engine.torch_engine.cuda.present import has_kernels


class Norm(Protocol):
    """RMS norm over the last dimension."""

    @property
    def weight(self) -> Tensor:
        """What each number is multiplied by, [size]."""
        ...

    @property
    def eps(self) -> float:
        """Added to the mean square."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        ...

    def added(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both, and the sum's norm."""
        ...


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """In torch's own operations. A float32 weight makes the whole norm one in float32."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        wide = x.to(self.weight.dtype)
        return functional.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)

    def added(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Add, then apply it."""
        both = x + more
        return both, self(both)


def norm(weight: Tensor, eps: float) -> Norm:
    """The fastest form of the norm where the weight lies."""
    if has_kernels(weight.device):
        from shared.engine.torch_engine.cuda.norms import FusedNorm  # noqa: PLC0415  only there is Triton

        return FusedNorm(weight, eps)
    return ShortNorm(weight, eps) if weight.is_cpu else RmsNorm(weight, eps)
