"""Which part of a model a rank has: rows and columns of each weight, heads, and what it writes of a KV buffer.

Pure. After Megatron-LM (arXiv 1909.08053): what makes heads and gates is split by its outputs, what joins them again by
its inputs, so that each block of a layer ends in one sum over the ranks. The head is split by vocabulary; the embedding
is whole in every rank, which costs memory, and no traffic.
"""

from dataclasses import dataclass, replace
from typing import Self

from shared.engine.torch_engine.architecture import Architecture
from shared.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Cut:
    """The run [start, stop) of an axis that has `whole` places."""

    whole: int
    start: int
    stop: int

    @classmethod
    def all(cls, whole: int) -> Self:
        """Nothing cut away."""
        return cls(whole, 0, whole)

    @classmethod
    def equal(cls, whole: int, number: int, parts: int) -> Self:
        """One of so many equally long parts, the last of which may be shorter, or empty."""
        size = -(-whole // parts)
        return cls(whole, min(number * size, whole), min((number + 1) * size, whole))

    @property
    def size(self) -> int:
        """How many places are in it."""
        return self.stop - self.start

    def times(self, width: int) -> "Cut":
        """The same of an axis with so many places in the place of one."""
        return Cut(self.whole * width, self.start * width, self.stop * width)


@dataclass(frozen=True, slots=True)
class Shard:
    """What one of `world` ranks has of an architecture."""

    rank: int
    world: int
    whole: Architecture
    heads: Cut
    kv_heads: Cut
    writes: bool  # it is the lowest rank with its KV heads: it writes them into buffers
    intermediate: Cut
    vocabulary: Cut  # of the head

    @property
    def local(self) -> Architecture:
        """What this rank computes, as if it were a model of its own."""
        return replace(
            self.whole,
            heads=self.heads.size,
            kv_heads=self.kv_heads.size,
            intermediate=self.intermediate.size,
        )

    @property
    def vocabulary_rows(self) -> int:
        """How many rows each rank's part of the head has, made up with zeros where the vocabulary ends earlier."""
        return -(-self.whole.vocabulary // self.world)


def shard(architecture: Architecture, rank: int = 0, world: int = 1) -> Shard:
    """The part of one rank. Raises ConfigError, naming all that cannot be split."""
    a = architecture
    faults = [
        f"engine_options.tensor_parallel: {world} ranks cannot share {number} {what} equally"
        for what, number in (("attention heads", a.heads), ("numbers between a layer's gates", a.intermediate))
        if number % world
    ]
    if a.kv_heads % world and world % a.kv_heads:
        faults.append(
            f"engine_options.tensor_parallel: {world} ranks cannot share {a.kv_heads} KV heads, nor have one each"
        )
    if faults:
        raise ConfigError(faults)
    sharing = max(1, world // a.kv_heads)  # ranks that have the same KV head
    return Shard(
        rank,
        world,
        a,
        heads=Cut.equal(a.heads, rank, world),
        kv_heads=Cut.equal(a.kv_heads, rank // sharing, world // sharing),
        writes=rank % sharing == 0,
        intermediate=Cut.equal(a.intermediate, rank, world),
        vocabulary=Cut.equal(a.vocabulary, rank, world),
    )


def device_names(first: str, world: int) -> list[str]:
    """The devices of all ranks: cuda:1 and two ranks are cuda:1 and cuda:2; ranks on the processor share it."""
    kind, _, number = first.partition(":")
    if kind == "cpu" or world == 1 or not (number.isdecimal() or not number):
        return [first] * world  # a name that is none is for `resolve` to refuse
    return [f"{kind}:{int(number or 0) + rank}" for rank in range(world)]
