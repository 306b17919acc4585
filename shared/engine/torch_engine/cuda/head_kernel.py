"""What happens to projected heads before attention, in one kernel: head norms, rotary positions, the cache's write."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit
def place_heads(
    projected: tl.tensor,
    turns: tl.tensor,
    places: tl.tensor,
    query_weight: tl.tensor,
    key_weight: tl.tensor,
    plane: tl.tensor,
    block_stride: int,
    query_eps: float,
    key_eps: float,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    half_width: tl.constexpr,
    block_size: tl.constexpr,
    heads_at_once: tl.constexpr,
    normed: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Queries stay where they are, normed and turned; keys, normed and turned, and values go to the cache.

    projected [rows, heads + 2 * kv_heads, head_dim] contiguous; turns [rows, 2, head_dim / 2] float32: cosines, sines;
    places [rows]: block * block_size + offset, below 0 where nothing is written; plane: one layer of the cache,
    [blocks, 2, block_size, kv_heads, head_dim] with `block_stride` numbers from block to block; the weights are of head
    norms, [head_dim], read where `normed`. One program per row and `heads_at_once` heads. `half_width` is head_dim / 2
    rounded up to a power of two. With `early` it is launched as `present.starts_early` says.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * heads_at_once + tl.arange(0, heads_at_once)
    half: tl.constexpr = head_dim // 2
    dim = tl.arange(0, half_width)
    inside = dim < half
    there = (head < heads + 2 * kv_heads)[:, None] & inside[None, :]
    low_at = projected + (row * (heads + 2 * kv_heads) + head)[:, None] * head_dim + dim[None, :]
    if early:
        gdc_wait()
    low = tl.load(low_at, mask=there, other=0.0).to(tl.float32)
    high = tl.load(low_at + half, mask=there, other=0.0).to(tl.float32)
    value = (head >= heads + kv_heads)[:, None]
    query = (head < heads)[:, None]
    if normed:
        mean = (tl.sum(low * low, 1) + tl.sum(high * high, 1)) / head_dim
        scale = tl.rsqrt(mean + tl.where(head < heads, query_eps, key_eps))[:, None]
        for_query = tl.load(query_weight + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
        for_key = tl.load(key_weight + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
        low = tl.where(value, low, low * scale * tl.where(query, for_query, for_key))
        for_query = tl.load(query_weight + half + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
        for_key = tl.load(key_weight + half + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
        high = tl.where(value, high, high * scale * tl.where(query, for_query, for_key))
    cos = tl.load(turns + row * head_dim + dim, mask=inside, other=1.0)[None, :]
    sin = tl.load(turns + row * head_dim + half + dim, mask=inside, other=0.0)[None, :]
    turned_low = tl.where(value, low, low * cos - high * sin).to(projected.dtype.element_ty)
    turned_high = tl.where(value, high, high * cos + low * sin).to(projected.dtype.element_ty)
    tl.store(low_at, turned_low, mask=there & query)
    tl.store(low_at + half, turned_high, mask=there & query)

    place = tl.load(places + row)
    from_head = tl.where(place < 0, heads + 2 * kv_heads, heads)  # none of them, or keys and values
    written = there & (head >= from_head)[:, None]
    which = tl.where(head >= heads + kv_heads, 1, 0)  # keys, values
    stored = head - heads - which * kv_heads
    line = (which * block_size + place % block_size) * kv_heads + stored
    to = plane + (place // block_size).to(tl.int64) * block_stride + line[:, None] * head_dim + dim[None, :]
    tl.store(to, turned_low, mask=written)
    tl.store(to + half, turned_high, mask=written)
