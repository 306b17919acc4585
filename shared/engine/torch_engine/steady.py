"""How many query rows torch's attention kernel on the CPU needs to sum every row in one order.

The kernel multiplies a block of query rows with 512 keys at a time. The matrix library takes other ways for few rows
than for many, with other last bits. From some number on, which depends on the head's size, it takes one: so with the
AVX-512 code of MKL. Its AVX2 code has no such number, since there the order depends on a row's place among the others.
What holds on this processor is measured, once, when an engine opens.
"""

import logging
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger(__name__)

QUERY_BLOCK: Final = 32
"""The kernel's smallest block of query rows: a multiple of it leaves no smaller rest."""
LARGE: Final = (192, 768)
"""From so many rows on, it takes blocks of 64 and of 256."""
MOST: Final = 24
"""Where more were needed, the last few numbers of rows would agree by chance."""
KEYS: Final = (64, 192, 320, 448, 576)
NONE: Final = 0


@cache
def fewest_rows(head_dim: int) -> int:
    """From so many rows on, a row has the same bits in every place among any number of rows. NONE if never."""
    generator = torch.Generator().manual_seed(head_dim)
    rows = 1
    for keys in KEYS:
        query = torch.randn((1, 1, QUERY_BLOCK, head_dim), generator=generator)
        key, value = torch.randn((2, 1, 1, keys, head_dim), generator=generator)
        expected = _attended(query, key, value)
        steady = torch.equal(_attended(query.flip(2), key, value).flip(2), expected) and all(
            torch.equal(
                _attended(query.repeat(1, 1, number // QUERY_BLOCK, 1), key, value)[:, :, -QUERY_BLOCK:], expected
            )
            for number in LARGE
        )
        while rows <= MOST and not all(
            torch.equal(_attended(query[:, :, :number], key, value), expected[:, :, :number])
            for number in range(rows, QUERY_BLOCK)
        ):
            rows += 1
        if rows > MOST or not steady:
            log.warning("on this processor a continued text may differ where two tokens are almost equally likely")
            return NONE
    return rows


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = torch.zeros((query.shape[2], key.shape[2]))
    return functional.scaled_dot_product_attention(query.contiguous(), key, value, attn_mask=mask, scale=1.0)
