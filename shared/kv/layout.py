"""What the bytes of a KV buffer mean: `[blocks, layers, 2, block_tokens, kv_heads, head_dim]`, block first.

Pure. Owns the geometry, the fingerprint that two engines compare before they exchange a buffer, and the checksum that
the receiver compares before it uses one. Block first means that a prefix of the blocks is a prefix of the buffer, and
that gathering and scattering move one run of bytes per block, whatever the number of layers.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import xxhash

LAYOUT_VERSION: Final = 1
"""Raised whenever the meaning of the bytes changes, so that old and new engines refuse each other's buffers."""
CHUNK_BYTES: Final = 1 << 20
"""How much is moved or hashed at a time: large enough to forget the call's cost, small enough to stop quickly."""
CHECKSUM_BYTES: Final = 16

Checksum = xxhash.xxh3_128
"""Incremental, 128 bits, releases the GIL on chunks; against accidents, not against an enemy who holds a ticket."""

_ITEM_BYTES: Final = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
}


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The geometry of one engine's KV buffers. Raises ValueError on one that cannot be."""

    model: str  # which weights: a name and a digest of them, as the engine knows it
    dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int

    def __post_init__(self) -> None:
        if self.dtype not in _ITEM_BYTES:
            raise ValueError(f"KV dtype {self.dtype!r} is none of {', '.join(_ITEM_BYTES)}")
        for name in ("layers", "kv_heads", "head_dim", "block_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a KV layout needs at least 1")

    @property
    def item_bytes(self) -> int:
        """Of one number."""
        return _ITEM_BYTES[self.dtype]

    @property
    def token_bytes(self) -> int:
        """Of one token's keys and values over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.item_bytes

    @property
    def block_bytes(self) -> int:
        """Of one block over all layers, keys and values."""
        return self.block_tokens * self.token_bytes

    @property
    def fingerprint(self) -> str:
        """Equal exactly where a buffer of one engine means the same to another."""
        parts = (
            f"baton-kv {LAYOUT_VERSION}",
            self.model,
            self.dtype,
            f"{self.layers} 2 {self.block_tokens} {self.kv_heads} {self.head_dim}",
        )
        # the lengths keep two lists of parts from running into one text
        text = "\n".join(f"{len(part)} {part}" for part in parts)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def shape(self, blocks: int) -> tuple[int, int, int, int, int, int]:
        """Of the buffer of so many blocks."""
        return (blocks, self.layers, 2, self.block_tokens, self.kv_heads, self.head_dim)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens; the last may be partly used."""
        return -(-tokens // self.block_tokens)

    def buffer_bytes(self, tokens: int) -> int:
        """Of the buffer of so many tokens: whole blocks."""
        return self.blocks_for(tokens) * self.block_bytes

    def block_range(self, block: int) -> tuple[int, int]:
        """Where one block lies in the buffer: (start, stop)."""
        return block * self.block_bytes, (block + 1) * self.block_bytes

    def completed_range(self, before: int, now: int, total: int) -> tuple[int, int]:
        """The bytes that became final when a prompt of `total` tokens grew from `before` computed tokens to `now`.

        Whole blocks only, until the last chunk completes the last block. Successive ranges cover the buffer once.
        """
        return self._final(before, total), self._final(now, total)

    def _final(self, tokens: int, total: int) -> int:
        blocks = self.blocks_for(total) if tokens >= total else tokens // self.block_tokens
        return blocks * self.block_bytes


def chunk_ranges(nbytes: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int]]:
    """(start, stop) of successive chunks that cover `nbytes` once; the last may be shorter."""
    for start in range(0, nbytes, chunk_bytes):
        yield start, min(start + chunk_bytes, nbytes)


def checksum(view: memoryview, still_wanted: Callable[[], None] = lambda: None) -> bytes:
    """Of the whole view, chunk by chunk; `still_wanted` is called before each and may raise to stop."""
    digest = Checksum()
    for start, stop in chunk_ranges(len(view)):
        still_wanted()
        with view[start:stop] as chunk:
            digest.update(chunk)
    return digest.digest()
