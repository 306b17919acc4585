"""Attention with one query per sequence, whose keys are shared out among programs (flash decoding).

Keys are read where the block table says, the query's own among them: `place_heads` has run before.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from shared.engine.torch_engine.cuda.scan_kernel import scan


@triton.jit
def decode_attention(
    projected: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    table: tl.tensor,
    plane: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    arrivals: tl.tensor,
    block_stride: int,
    table_stride: int,
    scale: float,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    block_size: tl.constexpr,
    window: tl.constexpr,
    splits: tl.constexpr,
    group_rows: tl.constexpr,
    members: tl.constexpr,
    keys_at_once: tl.constexpr,
    parts_at_once: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Attend with one query per sequence: out [rows, heads, head_dim]. Programs: rows x kv_heads x splits.

    projected [rows, heads + 2 * kv_heads, head_dim], of which the queries are read; positions [rows], below 0 where the
    result is to be zero; slots [rows]: rows of the table, [slots, blocks], whose `table_stride` is its width; plane and
    `block_stride` as for `place_heads`. The keys of a sequence are dealt out to as many of the splits as get
    `keys_at_once` each; of those the one that ends last puts the parts together: parts [rows, kv_heads, splits, group,
    head_dim] and sums [rows, kv_heads, splits, group] float32 are theirs, arrivals [rows * kv_heads] int32 is zero
    before and after.
    """
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    group: tl.constexpr = heads // kv_heads
    position = tl.load(positions + row)
    first = 0
    if window > 0:
        first = tl.maximum(position + 1 - window, 0)
    number = position + 1 - first
    share = tl.maximum(tl.cdiv(tl.cdiv(number, splits), keys_at_once), 1) * keys_at_once
    used = tl.maximum(tl.cdiv(number, share), 1)
    if split >= used:
        return

    slot = tl.load(slots + row)
    if early:  # place and number of the keys were there when the kernel ahead, which made the last of them, started
        gdc_wait()
    member = tl.arange(0, group_rows)
    dim = tl.arange(0, width)
    there = (member < group)[:, None] & (dim < head_dim)[None, :]
    wide_row = row.to(tl.int64)
    lines = member[:, None] * head_dim + dim[None, :]
    from_ = projected + (wide_row * (heads + 2 * kv_heads) + kv_head * group) * head_dim
    query = tl.load(from_ + lines, mask=there, other=0.0)
    summed = tl.zeros((group_rows, width), tl.float32)
    best = tl.full((group_rows,), float("-inf"), tl.float32)
    total = tl.zeros((group_rows,), tl.float32)
    blocks = table + slot.to(tl.int64) * table_stride
    begin = first + split * share
    summed, best, total = scan(
        query,
        summed,
        best,
        total,
        tl.full((group_rows,), 0, tl.int32) + position,
        blocks,
        plane + kv_head * head_dim,
        block_stride,
        scale,
        begin,
        tl.minimum(begin + share, position + 1),
        0,
        True,
        kv_heads,
        head_dim,
        width,
        block_size,
        keys_at_once,
    )
    result = summed / tl.where(total > 0.0, total, 1.0)[:, None]
    to = out + (wide_row * heads + kv_head * group) * head_dim
    if used == 1:
        tl.store(to + lines, result.to(out.dtype.element_ty), mask=there)
    else:
        mine = wide_row * kv_heads + kv_head
        part = (mine * splits + split) * group
        tl.store(parts + part * head_dim + lines, result, mask=there)
        tl.store(sums + part + member, best + tl.log2(total), mask=member < group)
        tl.debug_barrier()  # what all threads wrote is there for whoever sees the arrival
        if tl.atomic_add(arrivals + mine, 1, sem="acq_rel") == used - 1:
            combine(parts, sums, mine, used, to, group, members, head_dim, width, splits, parts_at_once)
            tl.store(arrivals + mine, 0)


@triton.jit
def combine(
    parts: tl.tensor,
    sums: tl.tensor,
    mine: int,
    used: int,
    to: tl.tensor,
    group: tl.constexpr,
    members: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    splits: tl.constexpr,
    parts_at_once: tl.constexpr,
) -> None:
    """Put together what the splits found, each weighted by its total: see `decode_attention`.

    All loads are independent of each other: nothing is stored before the last of them. `members` is `group` rounded up
    to a power of two.
    """
    member = tl.arange(0, members)
    dim = tl.arange(0, width)
    split = tl.arange(0, splits)
    logs = tl.load(
        sums + ((mine * splits + split) * group)[:, None] + member[None, :],
        mask=(split < used)[:, None] & (member < group)[None, :],
        other=float("-inf"),
        cache_modifier=".cg",
    )
    best = tl.max(logs, 0)
    best = tl.where(member < group, best, 0.0)
    total = tl.sum(tl.exp2(logs - best[None, :]), 0)
    summed = tl.zeros((members, width), tl.float32)
    lines = member[:, None] * head_dim + dim[None, :]
    whole = (member < group)[:, None] & (dim < head_dim)[None, :]
    for start in tl.static_range(0, splits, parts_at_once):
        some = start + tl.arange(0, parts_at_once)
        at = (mine * splits + some) * group
        there = some < used
        logs = tl.load(
            sums + at[:, None] + member[None, :],
            mask=there[:, None] & (member < group)[None, :],
            other=float("-inf"),
            cache_modifier=".cg",
        )
        weights = tl.exp2(logs - best[None, :])
        part = tl.load(
            parts + (at * head_dim)[:, None, None] + lines[None, :, :],
            mask=there[:, None, None] & whole[None, :, :],
            other=0.0,
            cache_modifier=".cg",
        )
        summed += tl.sum(part * weights[:, :, None], 0)
    result = summed / total[:, None]
    tl.store(to + lines, result.to(to.dtype.element_ty), mask=whole)
