"""Linear layers over eight-bit weights: few rows wait for the weight, so it is widened only in the product."""

import triton
import triton.language as tl


@triton.jit
def few_rows(
    x: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    arrived: tl.tensor,
    rows: int,
    outputs: int,
    inputs: int,
    share: int,
    biased: tl.constexpr,
    floating: tl.constexpr,
    room: tl.constexpr,
    block: tl.constexpr,
    step: tl.constexpr,
    splits: tl.constexpr,
) -> None:
    """out[rows, outputs] = x[rows, inputs] @ weight[outputs, inputs].T * scales (+ bias), for no more rows than `room`.

    Programs (i, j): `block` outputs, and the j-th of `splits` shares of the inputs, a multiple of `step`. The weight's
    bytes are int8, or e4m3 where `floating`. parts [blocks of outputs, splits, block, room] float32 and arrived
    [blocks of outputs] int32, all 0 before and after, are for more than one split: the last program of a block adds up
    what all have left, in their order, so that the sum is the same every time.
    """
    tile = tl.program_id(0)
    out_at = tile * block + tl.arange(0, block)
    there = out_at < outputs
    row = tl.arange(0, room)
    real = row < rows
    total = tl.zeros((block, room), tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, min(first + share, inputs), step):
        at = start + tl.arange(0, step)
        inside = at < inputs
        w = tl.load(
            weight + out_at.to(tl.int64)[:, None] * inputs + at[None, :], mask=there[:, None] & inside[None, :], other=0
        )
        given = tl.load(x + row[:, None] * inputs + at[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        wide = w.to(tl.float8e4nv, bitcast=True).to(tl.float32) if floating else w.to(tl.float32)
        total = tl.dot(wide.to(x.dtype.element_ty), tl.trans(given), total)
    last = True
    if splits > 1:
        place = tl.arange(0, block)[:, None] * room + row[None, :]
        tl.store(parts + (tile * splits + tl.program_id(1)) * block * room + place, total)
        tl.debug_barrier()
        last = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == splits - 1
        if last:
            total = tl.zeros((block, room), tl.float32)
            for split in range(splits):
                total += tl.load(parts + (tile * splits + split) * block * room + place, cache_modifier=".cg")
            tl.store(arrived + tile, 0)
    if last:
        total *= tl.load(scales + out_at, mask=there, other=0.0)[:, None]
        if biased:
            total += tl.load(bias + out_at, mask=there, other=0.0).to(tl.float32)[:, None]
        to = out + row[None, :] * outputs + out_at[:, None]
        tl.store(to, total.to(out.dtype.element_ty), mask=there[:, None] & real[None, :])


@triton.jit
def quantise_rows(
    x: tl.tensor, out: tl.tensor, scales: tl.tensor, greatest: tl.constexpr, size: tl.constexpr, width: tl.constexpr
) -> None:
    """x[row] ~ out[row] * scales[row], one program per row: e4m3 numbers, of which `greatest` is the greatest.

    x and out [rows, size] contiguous; `width` is `size` rounded up to a power of two.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, width)
    there = column < size
    given = tl.load(x + row * size + column, mask=there, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(given), 0), 1e-12) / greatest
    tl.store(out + row * size + column, (given / scale).to(out.dtype.element_ty), mask=there)
    tl.store(scales + row, scale)
