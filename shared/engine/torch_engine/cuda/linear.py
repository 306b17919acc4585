"""Linear layers whose weights are eight bits wide, with one scale per output: w ~ q * scale.

Decoding waits for the weights: few rows go through a kernel that reads the eight bits alone. Prompts wait for the
arithmetic: many rows of fp8 are multiplied as fp8, each with a scale of its own, those of int8 as 16-bit numbers.
"""

from functools import cache
from typing import Final, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.cuda.linear_kernels import few_rows, quantise_rows
from shared.errors import ConfigError

FEW: Final = 64
"""Up to so many rows, the weight's own bytes are what takes the time."""
FEWEST: Final = 16
"""Rows that a matrix unit takes at a time."""
MANY_OUTPUTS: Final = 1 << 14
"""From so many on, their blocks alone keep every processor busy."""
FP8: Final = torch.float8_e4m3fn
ALIGNED: Final = 16
"""Torch's product of fp8 matrices wants sizes that are multiples of it."""


class Shape(NamedTuple):
    """How the kernel for few rows divides its work."""

    block: int  # outputs of a program
    step: int  # inputs at a time
    splits: int  # programs that share the inputs of a block
    warps: int
    stages: int


class Quantised:
    """A layer that keeps eight bits of each weight: int8, or fp8 (e4m3), with which not every GPU can do anything.

    Raises ConfigError where this one cannot.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, floating: bool) -> None:
        if floating and not _knows_fp8(weight.device):
            raise ConfigError(["engine_options.quantization: fp8 needs a GPU of compute capability 8.9 or more"])
        greatest = torch.finfo(FP8).max if floating else 127.0
        scale = weight.abs().amax(dim=1).float().clamp(min=1e-12) / greatest  # [outputs]
        wide = weight.float() / scale[:, None]
        self._weight = wide.to(FP8) if floating else wide.round().to(torch.int8)
        self._scale = scale
        self._bias = bias
        self._arrived = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        self._scaled = floating and weight.is_cuda and not any(number % ALIGNED for number in weight.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it, computing in 16 bits where x has more."""
        narrow = (x if x.dtype.itemsize == 2 else x.to(torch.bfloat16)).contiguous()  # noqa: PLR2004
        if x.shape[0] <= FEW:
            return self._few(narrow, x.dtype)
        y = self._many_scaled(narrow) if self._scaled else self._many(narrow)
        y = y.to(x.dtype)
        return y if self._bias is None else y + self._bias

    def _few(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        rows, inputs = x.shape
        outputs = self._weight.shape[0]
        out = torch.empty((rows, outputs), dtype=dtype, device=x.device)
        room = max(FEWEST, triton.next_power_of_2(rows))
        shape = shape_for(outputs, room)
        blocks = -(-outputs // shape.block)
        parts = torch.empty(blocks * shape.splits * shape.block * room, dtype=torch.float32, device=x.device)
        few_rows[(blocks, shape.splits)](
            x,
            self._weight.view(torch.int8),
            self._scale,
            self._bias,
            out,
            parts,
            self._arrived,
            rows,
            outputs,
            inputs,
            -(-inputs // (shape.step * shape.splits)) * shape.step,
            self._bias is not None,
            self._weight.dtype == FP8,
            room,
            shape.block,
            shape.step,
            shape.splits,
            num_warps=shape.warps,
            num_stages=shape.stages,
        )
        return out

    def _many(self, x: Tensor) -> Tensor:
        """With the weight widened first; every eight-bit number is exact in 16 bits."""
        return functional.linear(x, self._weight.to(x.dtype)) * self._scale.to(x.dtype)

    def _many_scaled(self, x: Tensor) -> Tensor:
        rows, inputs = x.shape
        narrow = torch.empty_like(x, dtype=FP8)
        scale = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
        width = triton.next_power_of_2(inputs)
        quantise_rows[(rows,)](x, narrow, scale, torch.finfo(FP8).max, inputs, width, num_warps=8)
        product: Tensor = torch._scaled_mm(  # noqa: SLF001  torch offers it no other way
            narrow, self._weight.t(), scale, self._scale[None, :], out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return product


def shape_for(outputs: int, room: int) -> Shape:
    """What was fastest on an H100, for the layers of an 8B model: all of its 132 processors have something to read.

    Pure.
    """
    small = outputs < MANY_OUTPUTS
    if room <= FEWEST:
        return Shape(block=32, step=256, splits=2 if small else 1, warps=4, stages=4)
    return Shape(block=64, step=128, splits=4 if small else 1, warps=4, stages=4)


@cache
def _knows_fp8(where: torch.device) -> bool:
    return where.type != "cuda" or torch.cuda.get_device_capability(where) >= (8, 9)
