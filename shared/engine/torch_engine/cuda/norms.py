"""The RMS norm in one kernel, the addition before it included."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from shared.engine.torch_engine.cuda.norm_kernels import add_rms_norm, rms_norm
from shared.engine.torch_engine.cuda.present import starts_early


@dataclass(frozen=True, slots=True)
class FusedNorm:
    """See Norm. Computes in float32 whatever the numbers are, and rounds once."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        size = self.weight.shape[0]
        rows = x.reshape(-1, size)
        out = torch.empty_like(rows)
        if rows.shape[0]:
            width = triton.next_power_of_2(size)
            early = starts_early(rows.device)
            rms_norm[(rows.shape[0],)](
                rows, self.weight, out, self.eps, size, width, early, num_warps=_warps(width), launch_pdl=early
            )
        return out.view(x.shape)

    def added(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Add, then apply it."""
        size = self.weight.shape[0]
        x, more = x.contiguous(), more.contiguous()
        both, out = torch.empty_like(x), torch.empty_like(x)
        if x.shape[0]:
            width = triton.next_power_of_2(size)
            early = starts_early(x.device)
            add_rms_norm[(x.shape[0],)](
                x,
                more,
                self.weight,
                both,
                out,
                self.eps,
                size,
                width,
                early,
                num_warps=_warps(width),
                launch_pdl=early,
            )
        return both, out


def _warps(width: int) -> int:
    """Sixteen numbers a thread, and no more than 512 threads."""
    return max(1, min(16, width // 512))
