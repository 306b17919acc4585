"""The feed-forward's gate in one kernel: act(gate) * up."""

from collections.abc import Callable
from functools import partial
from typing import Final

import triton
from torch import Tensor

from shared.engine.torch_engine.cuda.gate_kernel import gate_kernel
from shared.engine.torch_engine.cuda.present import starts_early

BLOCK: Final = 1024


def fused_gate(name: str) -> Callable[[Tensor], Tensor]:
    """The gate with that activation, silu or gelu_tanh: [rows, 2 * size] -> [rows, size]."""
    return partial(_apply, gelu=name != "silu")


def _apply(both: Tensor, *, gelu: bool) -> Tensor:
    rows, size = both.shape[0], both.shape[1] // 2
    out = both.new_empty((rows, size))
    if rows:
        early = starts_early(both.device)
        gate_kernel[(rows, triton.cdiv(size, BLOCK))](
            both.contiguous(), out, size, BLOCK, gelu, early, launch_pdl=early
        )
    return out
