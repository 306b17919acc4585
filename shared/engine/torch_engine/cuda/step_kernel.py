"""A step's first kernel: what all layers use is made of what was uploaded."""

import triton
import triton.language as tl


@triton.jit
def begin_step(
    fields: tl.tensor,
    fresh: tl.tensor,
    frequencies: tl.tensor,
    tokens: tl.tensor,
    turns: tl.tensor,
    table: tl.tensor,
    last: tl.tensor,
    rows: int,
    kinds: tl.constexpr,
    half: tl.constexpr,
    half_width: tl.constexpr,
    entries: tl.constexpr,
) -> None:
    """Programs below `rows` make a row's token and angles, those beyond write `entries` new blocks each.

    fields [4, rows] int32: token (below 0: the last one drawn for the slot), position (below 0: padding), slot, place;
    fresh [1 + 2 * n] int32: how many entries there are, then each as its place in the flat table, and the block;
    frequencies [kinds, half] float32; tokens [rows] int32, turns [kinds, rows, 2, half] float32 and the table are
    written; last [slots] int32. `half_width` is `half` rounded up to a power of two.
    """
    program = tl.program_id(0)
    if program < rows:
        token = tl.load(fields + program)
        slot = tl.load(fields + 2 * rows + program)
        drawn = tl.load(last + slot)
        tl.store(tokens + program, tl.where(token < 0, drawn, token))
        position = tl.maximum(tl.load(fields + rows + program), 0).to(tl.float32)
        dim = tl.arange(0, half_width)
        inside = dim < half
        for kind in tl.static_range(kinds):
            angles = position * tl.load(frequencies + kind * half + dim, mask=inside, other=0.0)
            to = turns + (kind * rows + program).to(tl.int64) * 2 * half + dim
            tl.store(to, tl.cos(angles), mask=inside)
            tl.store(to + half, tl.sin(angles), mask=inside)
    else:
        entry = (program - rows) * entries + tl.arange(0, entries)
        there = entry < tl.load(fresh)
        where = tl.load(fresh + 1 + 2 * entry, mask=there, other=0)
        block = tl.load(fresh + 2 + 2 * entry, mask=there, other=0)
        tl.store(table + where, block, mask=there)
