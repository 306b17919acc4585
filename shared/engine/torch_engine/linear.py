"""y = x W^T + b, in the forms that a device and a quantisation ask for.

Batch invariance: one row must come out the same, bit for bit, whatever other rows share the call; otherwise a text
would depend on who else is being served. torch's plain matmul picks kernels by the number of rows and is not so. Over
a weight packed by oneDNN each output is summed in float32 over the inputs in one order for every number of rows from
two up; one row alone takes another kernel, so it is doubled. (Packing is also two to four times faster at few rows.) In
bfloat16 it is not so with AMX: kernels change with the number of rows, and with the threads the order in each. Only
pieces of one number of rows would be summed alike: small ones make prompts slow, large ones a single row.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.cpu.int8 import Int8
from shared.engine.torch_engine.cuda.present import has_kernels
from shared.engine.torch_engine.device import Device
from shared.errors import ConfigError

EXPECTED_ROWS = 64
"""What the packed layout is tuned for; any number of rows works."""
FUSED_INPUTS = 32
"""torch's int8 kernel reads past the ends of rows that are no multiple of half as many numbers."""
DEQUANTISED_AT_ONCE = 1 << 20
"""Weights turned back into numbers at a time: few enough to stay in the processor's cache."""


class Linear(Protocol):
    """A layer x [rows, inputs] -> [rows, outputs]."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        ...


def linear(device: Device, weight: Tensor, bias: Tensor | None = None, *, quantization: str = "none") -> Linear:
    """The fastest form of the layer on this device. `weight` is [outputs, inputs]."""
    if quantization != "none" and has_kernels(device.where):
        from shared.engine.torch_engine.cuda.linear import Quantised  # noqa: PLC0415  only there is Triton

        return Quantised(weight, bias, floating=quantization == "fp8")
    if quantization == "fp8":
        raise ConfigError(["engine_options.quantization: fp8 needs a CUDA device, and Triton"])
    if quantization == "int8":
        if not device.exact_int8:
            return WeightOnly(weight, bias, fused_rows=device.fused_int8_rows)
        exact = Int8(weight, bias)
        # float32 owes its bits, however many rows there are
        return exact if weight.dtype == torch.float32 else Lone(WeightOnly(weight, bias, fused_rows=1), exact)
    if device.packs and weight.dtype in (torch.float32, torch.bfloat16):
        return Packed(weight, bias)
    return Dense(weight, bias)


class Dense:
    """The weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return functional.linear(x, self._weight, self._bias)


class Packed:
    """The weight reordered once for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001  torch offers it no other way
            weight.contiguous(), EXPECTED_ROWS
        )
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        single = x.shape[0] == 1 and x.dtype == torch.float32  # bfloat16 has more orders than two
        rows = x.expand(2, -1).contiguous() if single else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            rows, self._weight, self._bias, "none", [], ""
        )
        return y[:1] if single else y


class WeightOnly:
    """Weight-only int8: one scale per output, w ~ q * scale. A quarter of float32's memory, and of its traffic.

    Multiplies in bfloat16, whose error is small beside that of eight bits. Few rows wait for memory: the fused kernel
    reads int8; with many rows the arithmetic counts, and pieces of the weight are turned back into numbers first.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, fused_rows: int) -> None:
        scale = weight.abs().amax(dim=1).float().clamp(min=1e-12) / 127.0  # [outputs]
        self._quantised = torch.round(weight.float() / scale[:, None]).to(torch.int8)
        self._scale = scale.to(torch.bfloat16)
        self._bias = bias
        self._fused_rows = 0 if weight.shape[1] % FUSED_INPUTS else fused_rows
        self._pieces = max(1, weight.numel() // DEQUANTISED_AT_ONCE)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        narrow = x.to(torch.bfloat16)
        if x.shape[0] <= self._fused_rows:
            fused = torch._weight_int8pack_mm  # noqa: SLF001  torch offers it no other way
            y: Tensor = fused(narrow, self._quantised, self._scale)
        else:
            pieces = [functional.linear(narrow, q.to(torch.bfloat16)) for q in self._quantised.chunk(self._pieces)]
            y = torch.cat(pieces, dim=1) * self._scale
        y = y.to(x.dtype)
        return y if self._bias is None else y + self._bias


class Lone:
    """One row by itself goes through one form of the layer, several through another. Both forms' weights are kept."""

    def __init__(self, alone: Linear, together: Linear) -> None:
        self._alone = alone
        self._together = together

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self._alone(x) if len(x) == 1 else self._together(x)
