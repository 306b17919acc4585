"""The gates of the feed-forward: SiLU, and GELU in its tanh form.

Steadiness: torch's fused kernels compute the last numbers of each thread's share, those that do not fill a vector
register, by another formula. Where the shares end depends on the number of rows and of threads, so a row came out
differently in other company: for Gemma 3 270M in one number of rows out of three, on three threads. Built of exact
operations and torch.exp, which has one formula for all, it does not; and in place that is faster for many rows.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.cuda.present import has_kernels
from shared.engine.torch_engine.device import Device

Activation = Callable[[Tensor], Tensor]
Gate = Callable[[Tensor], Tensor]
"""Of [rows, 2 * size], gate and up side by side: act(gate) * up, [rows, size]."""
LINEAR: Final = -2 * math.sqrt(2 / math.pi)
CUBIC: Final = 0.044715 * LINEAR


def activation(name: str, device: Device, dtype: torch.dtype) -> Activation:
    """The function of that name, silu or gelu, for this device."""
    steady = device.steady and dtype == torch.float32  # in fewer digits the steps between would be rounded
    if name == "silu":
        return _silu if steady else functional.silu
    return _gelu if steady else _fused_gelu


def gate(name: str, device: Device, dtype: torch.dtype) -> Gate:
    """The gate with that activation, for this device."""
    if has_kernels(device.where):
        from shared.engine.torch_engine.cuda.gates import fused_gate  # noqa: PLC0415  only there is Triton

        return fused_gate(name)
    act = activation(name, device, dtype)

    def apply(both: Tensor) -> Tensor:
        gates, up = both.chunk(2, dim=-1)
        return act(gates) * up

    return apply


def _fused_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _silu(x: Tensor) -> Tensor:
    """SiLU as x / (1 + exp(-x))."""
    below = x.neg().exp_().add_(1.0)
    return torch.div(x, below, out=below)


def _gelu(x: Tensor) -> Tensor:
    """GELU as x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))): half of 1 + tanh is such a quotient."""
    below = (x * x).mul_(CUBIC).add_(LINEAR).mul_(x).exp_().add_(1.0)
    return torch.div(x, below, out=below)
