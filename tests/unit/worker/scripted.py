"""An engine that does what a test tells it: computes when asked, steps when asked, dies when asked.

It keeps the protocol's promises. Its KV bytes depend on the tokens, and it refuses bytes that are not a sequence's own.
"""

import asyncio
from collections.abc import AsyncIterator

from shared.engine import Alternatives, EngineInfo, EngineLoad, Growth, Prefilled, Sampled, Sequence, Step
from shared.errors import BatonError, EngineFailed, KvRefused, Overloaded
from shared.messages import Finish

INFO = EngineInfo(
    model="scripted",
    fingerprint="scripted-1",
    context=64,
    block_tokens=4,
    block_bytes=256,
    blocks=64,
    max_sequences=2,
    eos_ids=frozenset({0}),
)


def next_token(tokens: list[int]) -> int:
    """Printable, and a function of all tokens before it."""
    return ord("a") + (sum(tokens) * 7 + len(tokens)) % 26


def expected_text(tokens: list[int], count: int) -> str:
    """What a stream without mishaps says."""
    grown = list(tokens)
    for _ in range(count):
        grown.append(next_token(grown))
    return "".join(map(chr, grown[len(tokens) :]))


def kv_of(tokens: list[int]) -> bytes:
    """The buffer's bytes."""
    return bytes((sum(tokens[: i // 64 + 1]) + i) % 256 for i in range(INFO.kv_bytes(len(tokens))))


class ScriptedEngine:
    """See `shared.engine.Engine`."""

    def __init__(self, info: EngineInfo = INFO) -> None:
        self._info = info
        self.held: dict[str, list[int]] = {}
        self.sequences: dict[str, Sequence] = {}
        self.decoding: set[str] = set()  # of the held ones
        self.released: list[str] = []
        self.growths: dict[str, Growth] = {}  # of the prompts for which somebody asks
        self.cached_tokens = 0  # what `cached` says
        self.prefilled = 0
        self.may_prefill = asyncio.Event()
        self.may_prefill.set()
        self.may_export = asyncio.Event()
        self.may_export.set()
        self.may_insert = asyncio.Event()
        self.may_insert.set()
        self.fails: BatonError | None = None  # the next prefill or insert
        self.eos_at: int | None = None  # number of generated tokens after which a sequence ends
        self._buffers: dict[str, memoryview] = {}
        self._steps: asyncio.Queue[Step | EngineFailed | None] = asyncio.Queue()
        self._count = 0

    @property
    def info(self) -> EngineInfo:
        return self._info

    def become(self, info: EngineInfo) -> None:
        """Be another model from now on."""
        self._info = info

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self._steps.put_nowait(None)

    def _failing(self) -> None:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    def cached(self, tokens: list[int]) -> int:
        return self.cached_tokens

    async def prefill(self, sequence: Sequence, buffer: memoryview, growth: Growth | None = None) -> Prefilled:
        self.held[sequence.key] = list(sequence.tokens)
        self._buffers[sequence.key] = buffer
        if growth is not None:
            self.growths[sequence.key] = growth
        self.sequences[sequence.key] = sequence
        await self.may_prefill.wait()
        try:
            self._failing()
        except BatonError:
            self._forget(sequence.key)
            raise
        self.prefilled += 1
        return Prefilled(self._sample(sequence.key), cached_tokens=1)

    def grow(self, key: str, tokens: int) -> None:
        """Have so many leading tokens of a growing prompt's KV in its buffer, and say so."""
        size = self._info.kv_bytes(tokens)
        self._buffers[key][:size] = kv_of(self.sequences[key].tokens)[:size]
        self.growths[key](tokens)

    async def exported(self, key: str) -> None:
        await self.may_export.wait()
        self._buffers[key][:] = kv_of(self.sequences[key].tokens)

    async def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        if len(self.held) >= self._info.max_sequences:
            raise Overloaded("the batch is full")
        self.held[sequence.key] = list(sequence.tokens)
        self.sequences[sequence.key] = sequence
        self.decoding.add(sequence.key)
        await self.may_insert.wait()
        try:
            self._failing()
            if bytes(buffer) != kv_of(sequence.tokens[:kv_tokens]):
                raise KvRefused("content", "the bytes are not this sequence's")
        except BatonError:
            self._forget(sequence.key)
            raise

    def _sample(self, key: str) -> Sampled:
        tokens, sequence = self.held[key], self.sequences[key]
        generated = len(tokens) - sequence.prompt_tokens + 1
        if self.eos_at is not None and generated > self.eos_at:
            return Sampled(key, 0, Finish.STOP, stop_token=0)
        token = next_token(tokens)
        tokens.append(token)
        finish = Finish.LENGTH if generated >= sequence.stopping.max_tokens else None
        wanted = sequence.sampling.logprobs
        alternatives = None if wanted is None else Alternatives(-0.5, [(token + k, -0.5 - k) for k in range(wanted)])
        return Sampled(key, token, finish, alternatives=alternatives)

    def step(self, *, failed: list[tuple[str, BatonError]] | None = None) -> Step:
        """Decode one token of every sequence, except those that fail now."""
        failed = failed or []
        for key, _ in failed:
            self._forget(key)
        step = Step([self._sample(key) for key in list(self.held) if key in self.decoding], failed)
        for sampled in step.sampled:
            if sampled.finish is not None:
                self._forget(sampled.key)
        self._count += 1
        self._steps.put_nowait(step)
        return step

    def die(self) -> None:
        """The device is gone."""
        self._steps.put_nowait(EngineFailed("the device is gone", fatal=True))

    async def steps(self) -> AsyncIterator[Step]:
        while (step := await self._steps.get()) is not None:
            if isinstance(step, EngineFailed):
                raise step
            yield step

    async def release(self, key: str) -> None:
        self.released.append(key)
        self._forget(key)
        await asyncio.sleep(0)

    def _forget(self, key: str) -> None:
        self.held.pop(key, None)
        self.sequences.pop(key, None)
        self._buffers.pop(key, None)
        self.decoding.discard(key)
        self.growths.pop(key, None)

    def load(self) -> EngineLoad:
        used = sum(self._info.blocks_for(len(tokens)) for tokens in self.held.values())
        return EngineLoad(len(self.held), self._info.blocks - used, self._count)


class PlainText:
    """The text of a stream whose tokens are characters; finds stop strings, holds back what may begin one."""

    def __init__(self, stop: list[str], generated: list[int]) -> None:
        self._stop = stop
        self._held = ""
        self.matched: str | None = None
        for token in generated:
            self.push(token)

    def push(self, token_id: int) -> str:
        self._held += chr(token_id)
        for stop in self._stop:
            at = self._held.find(stop)
            if at >= 0:
                self.matched = stop
                shown, self._held = self._held[:at], ""
                return shown
        keep = max((n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        shown, self._held = self._held, ""
        return shown


class Pieces:
    """Tokens are characters."""

    def piece(self, token_id: int) -> tuple[str, bytes]:
        return chr(token_id), chr(token_id).encode()
