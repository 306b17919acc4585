"""Which block of the paged cache belongs to whom, and which hold a prefix worth keeping.

Pure. Owns the reference counts, the prefix index and the order of eviction; never sees a tensor. A block is free (on
the free list), held (count above 0) or idle (count 0, but its content is indexed: kept until its room is needed).
Block 0 is never handed out: it stays zero, and short block tables are padded with it.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

Digest = bytes
NO_PARENT: Digest = b""


def digests(tokens: Sequence[int], block_size: int, salt: bytes = b"") -> Iterator[Digest]:
    """One digest per full block, each over the block's tokens and the digest before it: equal means equal prefix.

    Cryptographic, because a collision would answer one client with another's cache.
    """
    parent = NO_PARENT
    for start in range(0, len(tokens) - block_size + 1, block_size):
        content = array("I", tokens[start : start + block_size]).tobytes()
        parent = hashlib.blake2b(parent + content, digest_size=16, key=salt).digest()
        yield parent


class Blocks:
    """The allocator. Every block is free, held or idle, never two of them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = list(range(number, 0, -1))  # a stack: what was used last is still in the processor's cache
        self._count = [0] * (number + 1)
        self._digest: dict[int, Digest] = {}  # of blocks whose content is indexed
        self._block: dict[Digest, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # in order of eviction: first in, first out

    @property
    def free(self) -> int:
        """How many could be handed out now; idle blocks count."""
        return len(self._free) + len(self._idle)

    @property
    def cached(self) -> int:
        """How many have indexed content."""
        return len(self._digest)

    def allocate(self, number: int) -> list[int] | None:
        """So many blocks with a count of 1 each, or None when there are not enough: all or nothing."""
        if number > self.free:
            return None
        taken = [self._free.pop() if self._free else self._evict() for _ in range(number)]
        for block in taken:
            self._count[block] = 1
        return taken

    def match(self, prefix: Iterable[Digest]) -> list[int]:
        """The longest run of indexed blocks that the digests begin with, each now held once more."""
        found = []
        for digest in prefix:
            block = self._block.get(digest)
            if block is None:
                break
            self._idle.pop(block, None)
            self._count[block] += 1
            found.append(block)
        return found

    def indexed(self, prefix: Iterable[Digest]) -> int:
        """Count the indexed blocks that the digests begin with, holding none. Readable from any thread."""
        return sum(1 for _ in takewhile(self._block.__contains__, prefix))

    def publish(self, block: int, digest: Digest) -> None:
        """The held block now has the content that `digest` names. Of equal blocks the first stays the indexed one."""
        if digest not in self._block and block not in self._digest:
            self._block[digest] = block
            self._digest[block] = digest

    def release(self, blocks: Sequence[int]) -> None:
        """Give back one hold of each. Later blocks go idle first, so a prefix is evicted from its end."""
        for block in reversed(blocks):
            if self._count[block] <= 0:
                raise AssertionError(f"block {block} released more often than held")
            self._count[block] -= 1
            if self._count[block]:
                continue
            if block in self._digest:
                self._idle[block] = None
            else:
                self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)  # a plain dict would step over all that were evicted before
        del self._block[self._digest.pop(block)]
        return block

    def check(self) -> None:
        """Raise AssertionError unless every block is in exactly one state and the index is its own inverse."""
        held = {block for block in range(1, self.number + 1) if self._count[block]}
        free, idle = set(self._free), set(self._idle)
        if len(free) != len(self._free) or free & idle or free & held or idle & held:
            raise AssertionError("a block is in two states")
        if len(free) + len(idle) + len(held) != self.number:
            raise AssertionError("a block is lost")
        if {block: digest for digest, block in self._block.items()} != self._digest or not idle <= set(self._digest):
            raise AssertionError("the prefix index is inconsistent")
