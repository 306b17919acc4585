"""Where each byte of a KV buffer lies, for any number of ranks: [tensor][head][block][slab].

Pure. A buffer holds the whole model's KV of a prompt, so that prefill and decode may be split over different numbers of
ranks. Tensors come in the order of the layers, of each all heads of the model, of each head the prompt's blocks; a slab
is what one head has in one block. What a rank has of a tensor is therefore one contiguous run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from shared.engine.vllm_engine.notes import Part, Registered
from shared.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """Which heads of a tensor one rank has, and whether it is the one that writes them into buffers."""

    heads: int  # of the whole model
    first: int
    count: int
    writes: bool  # the lowest rank of those that have the same heads


class Run(NamedTuple):
    """A contiguous piece of the arena."""

    start: int
    nbytes: int


def share(heads: int, rank: int, ranks: int) -> Share:
    """What tensor-parallel rank `rank` of `ranks` has of `heads` KV heads; 1 for what is not split (MLA).

    With fewer heads than ranks each head lies in several ranks. Raises ConfigError where neither divides the other.
    """
    if heads % ranks == 0:
        count = heads // ranks
        return Share(heads, rank * count, count, writes=True)
    if ranks % heads == 0:
        copies = ranks // heads
        return Share(heads, rank // copies, 1, writes=rank % copies == 0)
    raise ConfigError([f"{heads} KV heads cannot be shared out over {ranks} tensor-parallel ranks"])


def run(part: Part, before: int, offset: int, blocks: int) -> Run:
    """Where a rank's part of one tensor lies, in a buffer of so many blocks that starts at `offset` of the arena.

    `before` is Plan.before of the part's name: bytes per block of the tensors that come earlier.
    """
    column = blocks * part.slab_bytes
    return Run(offset + blocks * before + part.first * column, part.count * column)


class Geometry:
    """A buffer as all ranks of one engine see it. Raises ConfigError where they do not fit together."""

    def __init__(self, registrations: Sequence[Registered]) -> None:
        ranks = sorted(registrations, key=lambda one: (one.stage, one.rank))
        faults = _faults(ranks) or [fault for stage in _stages(ranks) for fault in _stage_faults(stage)]
        if faults:
            raise ConfigError([f"vLLM's ranks do not fit together: {fault}" for fault in faults])
        self.blocks = ranks[0].blocks
        self.block_tokens = ranks[0].block_tokens
        self.before: dict[str, int] = {}
        self.block_bytes = 0  # of one block over all tensors and heads
        self._tensors: list[Part] = [part for stage in _stages(ranks) for part in stage[0].parts]
        for part in self._tensors:
            if part.name in self.before:
                raise ConfigError([f"two pipeline stages of vLLM both have a KV tensor {part.name}"])
            self.before[part.name] = self.block_bytes
            self.block_bytes += part.heads * part.slab_bytes
        self._layout = ranks[0].layout

    @property
    def identity(self) -> list[str]:
        """What two engines must have in common to exchange buffers; their numbers of ranks are not part of it."""
        tensors = [f"{part.name} {part.heads} {part.slab_bytes}" for part in self._tensors]
        return [self._layout, str(self.block_tokens), *tensors]


def _faults(ranks: Sequence[Registered]) -> list[str]:
    """What is wrong between any two ranks; a sentence each."""
    if not ranks:
        return ["none has registered"]
    found = []
    world = ranks[0].world
    if sorted(one.rank for one in ranks) != list(range(world)):
        found.append(f"ranks {sorted(one.rank for one in ranks)} came, where {world} were to come")
    for what in ("world", "blocks", "block_tokens", "layout"):
        values = {getattr(one, what) for one in ranks}
        if len(values) > 1:
            found.append(f"{what} differs: {' and '.join(sorted(str(value) for value in values))}")
    if not any(one.parts for one in ranks):
        found.append("none has a KV tensor")
    return found


def _stages(ranks: Iterable[Registered]) -> list[list[Registered]]:
    stages: dict[int, list[Registered]] = {}
    for one in ranks:
        stages.setdefault(one.stage, []).append(one)
    return [stages[stage] for stage in sorted(stages)]


def _stage_faults(stage: Sequence[Registered]) -> list[str]:
    """What is wrong between ranks that share the same tensors."""
    for one, other in pairwise(stage):
        ours, theirs = ([(part.name, part.heads, part.slab_bytes) for part in each.parts] for each in (one, other))
        if ours != theirs:
            odd = next(
                (pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), (len(ours), len(theirs))
            )
            return [f"ranks {one.rank} and {other.rank} of stage {one.stage} have different tensors: {odd}"]
    found = []
    for parts in zip(*(one.parts for one in stage), strict=True):
        had = {head for part in parts for head in range(part.first, part.first + part.count)}
        if had != set(range(parts[0].heads)):
            found.append(f"of the {parts[0].heads} heads of {parts[0].name} the ranks have {sorted(had)}")
    return found
