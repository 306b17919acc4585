"""RMS norm of rows, with or without an addition before it: one pass over memory, arithmetic in float32."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit
def rms_norm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: float,
    size: tl.constexpr,
    width: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """out[row] = norm(x[row]) * weight, one program per row.

    x and out [rows, size] contiguous, weight [size]; `width` is `size` rounded up to a power of two. With `early` it is
    launched as `present.starts_early` says.
    """
    row = tl.program_id(0).to(tl.int64) * size
    columns = tl.arange(0, width)
    there = columns < size
    weights = tl.load(weight + columns, mask=there, other=0.0).to(tl.float32)
    if early:
        gdc_wait()
    wide = tl.load(x + row + columns, mask=there, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / size + eps)
    tl.store(out + row + columns, (wide * scale * weights).to(out.dtype.element_ty), mask=there)


@triton.jit
def add_rms_norm(
    x: tl.tensor,
    more: tl.tensor,
    weight: tl.tensor,
    both: tl.tensor,
    out: tl.tensor,
    eps: float,
    size: tl.constexpr,
    width: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """both[row] = x[row] + more[row]; out[row] = norm(both[row]) * weight, of the sum as it was rounded.

    Shapes as for `rms_norm`.
    """
    row = tl.program_id(0).to(tl.int64) * size
    columns = tl.arange(0, width)
    there = columns < size
    weights = tl.load(weight + columns, mask=there, other=0.0).to(tl.float32)
    if early:
        gdc_wait()
    first = tl.load(x + row + columns, mask=there, other=0.0).to(tl.float32)
    second = tl.load(more + row + columns, mask=there, other=0.0).to(tl.float32)
    rounded = (first + second).to(both.dtype.element_ty)
    tl.store(both + row + columns, rounded, mask=there)
    wide = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / size + eps)
    tl.store(out + row + columns, (wide * scale * weights).to(out.dtype.element_ty), mask=there)
