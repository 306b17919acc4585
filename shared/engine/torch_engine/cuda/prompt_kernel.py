"""Attention with the queries of prompts' chunks, in tiles, over what the cache holds of each prompt.

Keys are read where the block table says, the queries' own among them: `place_heads` has run before.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from shared.engine.torch_engine.cuda.scan_kernel import scan


@triton.jit
def prompt_attention(
    projected: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    tiles: tl.tensor,
    table: tl.tensor,
    plane: tl.tensor,
    out: tl.tensor,
    block_stride: int,
    table_stride: int,
    scale: float,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    block_size: tl.constexpr,
    window: tl.constexpr,
    tile_rows: tl.constexpr,
    keys_at_once: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Attend with the queries of chunks: out [rows, heads, head_dim]. Programs: kv_heads x tiles.

    tiles [tiles, 2]: the first of the step's rows in the tile, and how many there are, at most tile_rows // group; all
    of one chunk. The other arguments are those of `decode_attention`.
    """
    kv_head = tl.program_id(0)
    tile = tl.program_id(1)
    group: tl.constexpr = heads // kv_heads
    if early:
        gdc_wait()
    first_row = tl.load(tiles + 2 * tile)
    number = tl.load(tiles + 2 * tile + 1)
    lowest = tl.load(positions + first_row)
    highest = lowest + number - 1

    member = tl.arange(0, tile_rows)
    turn = member // group  # of the tile's queries
    dim = tl.arange(0, width)
    there = (turn < number)[:, None] & (dim < head_dim)[None, :]
    row = (first_row + turn).to(tl.int64)
    head = kv_head * group + member % group
    from_ = projected + (row * (heads + 2 * kv_heads) + head)[:, None] * head_dim + dim[None, :]
    query = tl.load(from_, mask=there, other=0.0)
    mine = tl.minimum(lowest + turn, highest)
    summed = tl.zeros((tile_rows, width), tl.float32)
    best = tl.full((tile_rows,), float("-inf"), tl.float32)
    total = tl.zeros((tile_rows,), tl.float32)
    blocks = table + tl.load(slots + first_row).to(tl.int64) * table_stride
    keys = plane + kv_head * head_dim

    begin = 0
    if window > 0:  # first the keys that the window hides from some of the queries
        begin = tl.maximum(lowest + 1 - window, 0) // keys_at_once * keys_at_once
        whole = tl.cdiv(tl.maximum(highest + 1 - window, 0), keys_at_once) * keys_at_once
        whole = tl.minimum(whole, highest + 1)
        summed, best, total = scan(
            query,
            summed,
            best,
            total,
            mine,
            blocks,
            keys,
            block_stride,
            scale,
            begin,
            whole,
            window,
            True,
            kv_heads,
            head_dim,
            width,
            block_size,
            keys_at_once,
        )
        begin = whole
    seen_by_all = tl.maximum((lowest + 1) // keys_at_once * keys_at_once, begin)
    summed, best, total = scan(
        query,
        summed,
        best,
        total,
        mine,
        blocks,
        keys,
        block_stride,
        scale,
        begin,
        seen_by_all,
        window,
        False,
        kv_heads,
        head_dim,
        width,
        block_size,
        keys_at_once,
    )
    summed, best, total = scan(
        query,
        summed,
        best,
        total,
        mine,
        blocks,
        keys,
        block_stride,
        scale,
        seen_by_all,
        highest + 1,
        window,
        True,
        kv_heads,
        head_dim,
        width,
        block_size,
        keys_at_once,
    )
    result = summed / total[:, None]
    to = out + (row * heads + head)[:, None] * head_dim + dim[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=there)
