"""The hand-off that one contiguous buffer replaces, for measuring only: block after block, each confirmed.

Both ends must be made with equal sizes; no setting reaches this, and nothing in the protocol says it. The staging
stands for the paged caches: blocks lie in it in another order at either end, so nothing is gathered or scattered.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from shared.kv.layout import Checksum, checksum, chunk_ranges
from shared.kv.link import Link
from shared.kv.wire import (
    ADDRESS_BYTES,
    ANSWER_BYTES,
    Answer,
    expect_go,
    pack_address,
    pack_answer,
    parse_address,
    parse_answer,
)


class Memory(Protocol):
    """A sender's memory that is copied from, as `intake.PeerMemory`."""

    def copy(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> bytes:
        """See there."""
        ...


@dataclass(frozen=True, slots=True)
class BlockFixed:
    """One end. `seed` chooses the order that its blocks lie in."""

    block_bytes: int
    seed: int

    def send(self, link: Link, view: memoryview) -> bytes:
        """Over TCP, in a thread: each block goes once the one before it is confirmed; the checksum of all."""
        digest = Checksum()
        for start, stop in self._blocks(len(view)):
            with view[start:stop] as block:
                link.put(block)
                digest.update(block)
            _confirmed(link)
        return digest.digest()

    def receive(self, link: Link, view: memoryview) -> bytes:
        """The other end of `send`."""
        digest = Checksum()
        for start, stop in self._blocks(len(view)):
            with view[start:stop] as block:
                link.fill(block)
                digest.update(block)
            link.put(pack_answer(Answer.GO))
        return digest.digest()

    def announce(self, link: Link, view: memoryview) -> bytes:
        """By shared memory: say where each block lies, once the one before it is copied; the checksum of all."""
        digest = Checksum()
        for start, stop in self._blocks(len(view)):
            link.put(pack_address(start))
            with view[start:stop] as block:
                digest.update(checksum(block))
            _confirmed(link)
        return digest.digest()

    def fetch(self, link: Link, memory: Memory, offset: int, view: memoryview) -> bytes:
        """The other end of `announce`."""
        digest = Checksum()
        for start, stop in self._blocks(len(view)):
            place = parse_address(link.take(ADDRESS_BYTES))
            with view[start:stop] as block:
                digest.update(memory.copy(offset + place, block, link.still_wanted))
            link.put(pack_answer(Answer.GO))
        return digest.digest()

    def _blocks(self, nbytes: int) -> Iterator[tuple[int, int]]:
        ranges = list(chunk_ranges(nbytes, self.block_bytes))
        return (ranges[place] for place in _order(len(ranges), self.seed))


def _confirmed(link: Link) -> None:
    expect_go(parse_answer(link.take(ANSWER_BYTES)))


@cache
def _order(number: int, seed: int) -> list[int]:
    """Shuffled, but for the last one, which may be shorter."""
    return [*random.Random(seed).sample(range(number - 1), number - 1), number - 1]  # noqa: S311  no secret
