"""The Engine protocol: what a worker needs of whatever runs the model. Imports no torch.

Life of an engine: `start` once (loads the model), then any number of sequences at once, `close` once. All methods are
called on the event loop's thread; an engine computes elsewhere and never blocks the loop.

Prefill side, per key, in this order: `prefill` (answers with the first token), `exported` (the KV buffer is complete),
`release`. Decode side: `insert`, then the key's tokens come out of `steps`, then `release` unless a step ended it. Both
may go on in one engine at once; a key that was released after its prompt may be inserted there.
`release` is allowed at every point, any number of times; when it returns the engine holds nothing of that key any
more and touches its buffer no more.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from shared.errors import BatonError
from shared.kv.arena import Arena
from shared.messages import Finish, Health, Sampling, Stopping


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is fixed once an engine has started."""

    model: str
    fingerprint: str  # of model, KV layout and dtype: two engines with equal ones may exchange KV buffers
    context: int  # tokens, prompt and generated together
    block_tokens: int
    block_bytes: int  # of one block over all layers, keys and values
    blocks: int  # that sequences can use
    max_sequences: int
    eos_ids: frozenset[int]

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def kv_bytes(self, tokens: int) -> int:
        """Size in bytes of the contiguous KV buffer of so many tokens: whole blocks, one after another."""
        return self.blocks_for(tokens) * self.block_bytes


@dataclass(frozen=True, slots=True)
class Sequence:
    """What an engine is to compute. `key` is unique per attempt."""

    key: str
    tokens: list[int]  # prompt, then what was already generated
    prompt_tokens: int
    sampling: Sampling
    stopping: Stopping


class Alternatives(NamedTuple):
    """Log probabilities (natural log) at one position: of the sampled token, and of the likeliest ones, best first."""

    logprob: float
    top: list[tuple[int, float]]


class Sampled(NamedTuple):
    """One new token of one sequence."""

    key: str
    token_id: int
    finish: Finish | None = None  # the engine ended the sequence with this token; stop strings are not its business
    stop_token: int | None = None  # the end-of-sequence or stop token that ended it; its text is not shown
    alternatives: Alternatives | None = None


class Prefilled(NamedTuple):
    """What `prefill` answers."""

    first: Sampled
    cached_tokens: int  # prompt tokens found in the prefix cache


@dataclass(slots=True)
class Step:
    """What one engine step brought, for all sequences at once."""

    sampled: list[Sampled] = field(default_factory=list)
    failed: list[tuple[str, BatonError]] = field(default_factory=list)  # retryable where another attempt may succeed


class EngineLoad(NamedTuple):
    """A snapshot for admission, heartbeats and leak checks."""

    sequences: int
    free_blocks: int  # counts cached blocks that nobody uses as free
    steps: int  # since start; stands still when the engine is stuck or idle


Growth = Callable[[int], None]
"""Told how many leading tokens of a prompt's KV buffer are final: whole blocks, and more each time."""


class Engine(Protocol):
    """Runs one model on one device (or one group of devices)."""

    @property
    def info(self) -> EngineInfo:
        """Valid after `start`."""
        ...

    async def start(self) -> None:
        """Load the model and be ready. Raises EngineFailed (fatal) when it cannot."""
        ...

    async def close(self) -> None:
        """Stop computing and free the device; idempotent. Sequences still held end without an answer."""
        ...

    async def prefill(self, sequence: Sequence, buffer: memoryview, growth: Growth | None = None) -> Prefilled:
        """Run the prompt and sample the next token. `buffer` has info.kv_bytes(len(tokens)) bytes, writable.

        `growth` is called on the loop's thread, until `exported` returns, as parts of the buffer become final while
        others still compute; a short prompt's may never be.
        Raises BadRequest (too long, or a constraint that cannot be used), Overloaded (no blocks: admission should have
        prevented it), EngineFailed.
        On an exception the engine holds nothing of the key.
        """
        ...

    async def exported(self, key: str) -> None:
        """Return once `buffer` holds the KV of all of the sequence's tokens; the engine's own blocks are then free."""
        ...

    async def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        """Scatter `buffer`, the KV of tokens[:kv_tokens], into own blocks and join the running batch.

        kv_tokens is len(tokens) - 1: the last token was sampled by prefill and has no KV yet. Returns once the buffer
        is no longer needed. Raises BadRequest as `prefill` does, Overloaded when no block or no place in the batch is
        free, KvRefused when the bytes cannot be this sequence's.
        """
        ...

    def steps(self) -> AsyncIterator[Step]:
        """Every decode step's tokens, in order; one reader. Ends at close; raises EngineFailed when the engine dies.

        A text that its constraint leads nowhere, or too far, fails with BadRequest; its neighbours do not.
        One that runs out of blocks fails with Overloaded (retryable): its preemption is the next attempt's start.
        """
        ...

    async def release(self, key: str) -> None:
        """Drop a sequence in whatever state; unknown keys are fine."""
        ...

    def cached(self, tokens: list[int]) -> int:
        """Count the leading tokens whose KV is in the prefix cache now: a hint, for it may be gone a moment later."""
        ...

    def load(self) -> EngineLoad:
        """Now."""
        ...


@runtime_checkable
class Probed(Protocol):
    """An engine that can tell how well its device is."""

    @property
    def devices(self) -> frozenset[str]:
        """Names that its device goes by, as a node's fault file may use them."""
        ...

    def probe(self) -> tuple[Health, str]:
        """Say how well the device is, and why not better. Blocks; called in a thread, at any time after `start`."""
        ...


@runtime_checkable
class Staged(Protocol):
    """An engine whose own processes work on KV buffers where they lie: in one arena that is shared with them."""

    def stage(self, arena: Arena) -> None:
        """Use this arena, every buffer being a range of it. Before `start`."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """An engine that can keep KV buffers in its device's own memory, so that they need not stop in the host's."""

    async def stage_on_device(self, arena: Arena, nbytes: int) -> None:
        """Set `arena.device`, of so many bytes at most, where the device has a use for it. Once, after `start`.

        From then on `exported` means: the buffer is complete in `buffer` or, where the arena marks it, on the device;
        and `insert` finds it in either place. The memory goes with the engine. Raises EngineFailed.
        """
        ...
