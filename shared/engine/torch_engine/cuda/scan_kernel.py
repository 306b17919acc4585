"""Attention's inner loop over the paged cache, as in FlashAttention (arXiv 2205.14135): scores never reach memory.

The query heads that share a key head are rows of one tile, so that keys and values are read once for all of them.
"""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def scan(
    query: tl.tensor,
    summed: tl.tensor,
    best: tl.tensor,
    total: tl.tensor,
    positions: tl.tensor,
    blocks: tl.tensor,
    keys: tl.tensor,
    block_stride: int,
    scale: float,
    first: int,
    stop: int,
    window: tl.constexpr,
    masked: tl.constexpr,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    block_size: tl.constexpr,
    keys_at_once: tl.constexpr,
) -> Any:  # noqa: ANN401  three tensors, which Triton's types cannot say
    """Take the keys [first, stop) into the running softmax: weighted values, best score, and the weights' total.

    Scores are in powers of two: `scale` has log2(e) in it. Without `masked` every query sees all those keys, whose
    number is then a multiple of `keys_at_once`.
    """
    dim = tl.arange(0, width)
    inside = (dim < head_dim)[None, :]
    for start in range(first, stop, keys_at_once):
        seen = start + tl.arange(0, keys_at_once)
        if masked:
            there = seen < stop
            block = tl.load(blocks + seen // block_size, mask=there, other=0)
            mask = there[:, None] & inside
        else:
            block = tl.load(blocks + seen // block_size)
            mask = inside
        line = block.to(tl.int64) * block_stride + (seen % block_size) * (kv_heads * head_dim)
        at = keys + line[:, None] + dim[None, :]
        key = tl.load(at, mask=mask, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        if masked:
            visible = (seen[None, :] < stop) & (seen[None, :] <= positions[:, None])
            if window > 0:
                visible = visible & (seen[None, :] > positions[:, None] - window)
            scores = tl.where(visible, scores, float("-inf"))
        better = tl.maximum(best, tl.max(scores, 1))
        base = better
        if masked:  # of a query that has seen nothing yet the best is -inf, and -inf - -inf is no number
            base = tl.where(better == float("-inf"), 0.0, better)
        weights = tl.exp2(scores - base[:, None])
        fading = tl.exp2(best - base)
        total = total * fading + tl.sum(weights, 1)
        value = tl.load(at + block_size * kv_heads * head_dim, mask=mask, other=0.0)
        summed = tl.dot(weights.to(value.dtype), value, summed * fading[:, None], input_precision="ieee")
        best = better
    return summed, best, total
