"""Engines of every kind for one contract suite, and what a worker does with them, without a worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.config import ScenarioSettings
from shared.engine import Engine, Sampled, Sequence, Staged
from shared.engine.opening import open_engine
from shared.errors import BatonError
from shared.messages import Finish, Sampling, Stopping
from shared.models import ModelSpec, resolve
from tests.shared_arena import SharedArena
from tests.vllm_pool import VllmPool

DEADLINE_S = 30.0
PROMPT = [84, 104, 101, 32, 102, 111, 120, 32, 105, 115]
"""Ten tokens: two blocks and a half."""
OTHERS = [PROMPT[:1], PROMPT[:4], PROMPT[:5], PROMPT * 3, [101, *PROMPT], PROMPT[::-1]]
SIM_OPTIONS = {"prefill_ms": [0, 0, 0], "decode_step_ms": 0, "kv_bytes_per_token": 100}
SIZES = {"block_size": 4, "num_blocks": 64, "max_num_seqs": 16, "max_model_len": 128}


def sequence(
    key: str, tokens: list[int], prompt_tokens: int = 0, stopping: Stopping | None = None, **sampling: Any
) -> Sequence:
    """Drawn at temperature 1 with seed 7, twelve tokens, unless told otherwise."""
    chosen = Sampling(**{"seed": 7, **sampling})
    return Sequence(key, tokens, prompt_tokens or len(tokens), chosen, stopping or Stopping(max_tokens=12))


def memory_for(engine: Engine, content: bytes) -> memoryview:
    """What the engine can use as a buffer, with that content."""
    if isinstance(engine, Staged):
        return SharedArena.memory(content)
    return memoryview(bytearray(content))


def buffer_for(engine: Engine, tokens: int) -> memoryview:
    """Full of another request's bytes."""
    return memory_for(engine, b"\xa5" * engine.info.kv_bytes(tokens))


def assert_empty(engine: Engine) -> None:
    """Nothing is held, and every block is free."""
    load = engine.load()
    assert (load.sequences, load.free_blocks) == (0, engine.info.blocks)


@dataclass
class Ending:
    """What came out of `steps` for one key."""

    sampled: list[Sampled] = field(default_factory=list)
    error: BatonError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def tokens(self) -> list[int]:
        """In order."""
        return [one.token_id for one in self.sampled]


class Worker:
    """One engine and the only reader of its steps; an engine whose steps nobody reads stands still sooner or later."""

    def __init__(self, engine: Engine, *, reads: bool) -> None:
        self.engine = engine
        self.endings: dict[str, Ending] = {}
        self._reader: asyncio.Task[None] | None = None
        if reads:
            self.read()

    def read(self) -> None:
        """Begin to read."""
        self._reader = asyncio.create_task(self._read(), name="reader of steps")

    def ending(self, key: str) -> Ending:
        """Of one sequence; may be asked for before its first token."""
        return self.endings.setdefault(key, Ending())

    async def _read(self) -> None:
        async for step in self.engine.steps():
            for sampled in step.sampled:
                ending = self.ending(sampled.key)
                ending.sampled.append(sampled)
                if sampled.finish is not None:
                    ending.over.set()
            for key, error in step.failed:
                self.ending(key).error = error
                self.ending(key).over.set()

    async def prefill(self, wanted: Sequence) -> tuple[Sampled, memoryview]:
        """Prompt, export, release; the first token and the buffer."""
        async with asyncio.timeout(DEADLINE_S):
            buffer = buffer_for(self.engine, len(wanted.tokens))
            answer = await self.engine.prefill(wanted, buffer)
            await self.engine.exported(wanted.key)
            await self.engine.release(wanted.key)
        return answer.first, buffer

    async def decode(self, wanted: Sequence, first: Sampled, buffer: memoryview) -> Ending:
        """Insert and wait for the end."""
        async with asyncio.timeout(DEADLINE_S):
            await self.engine.insert(extended(wanted, first), len(wanted.tokens), buffer)
            await self.ending(wanted.key).over.wait()
        return self.ending(wanted.key)

    async def alone(self, tokens: list[int], count: int, **sampling: Any) -> list[int]:
        """The next tokens by prefill only, one at a time: no hand-off, no batch, each from the whole text before it."""
        text = list(tokens)
        for place in range(count):
            wanted = sequence(f"alone-{place}", text, len(tokens), Stopping(max_tokens=count + 1), **sampling)
            first, _ = await self.prefill(wanted)
            text.append(first.token_id)
        return text[len(tokens) :]

    async def leave(self) -> None:
        """Read no more, of an engine that others will use."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def close(self) -> None:
        """Close the engine; its steps must end with it."""
        await self.engine.close()
        if self._reader is not None:
            async with asyncio.timeout(DEADLINE_S):
                await self._reader


def extended(wanted: Sequence, first: Sampled) -> Sequence:
    """With the token that prefill has drawn."""
    return replace(wanted, tokens=[*wanted.tokens, first.token_id])


async def relay(prefill: Worker, decode: Worker, wanted: Sequence) -> list[Sampled]:
    """A whole request: every token, the first one too. Raises what decode's steps failed it with."""
    first, buffer = await prefill.prefill(wanted)
    if first.finish is not None:
        return [first]
    ending = await decode.decode(wanted, first, buffer)
    if ending.error is not None:
        raise ending.error
    return [first, *ending.sampled]


def ids(sampled: list[Sampled]) -> list[int]:
    """Only the tokens."""
    return [one.token_id for one in sampled]


def reason(sampled: list[Sampled]) -> Finish | None:
    """Why the last token ended it; no other may have."""
    assert all(one.finish is None for one in sampled[:-1])
    return sampled[-1].finish


class House:
    """Makes engines of one kind, all of the same model, and closes them."""

    def __init__(self, kind: str, directory: Path | None, **options: Any) -> None:
        self.kind = kind
        self._directory = directory
        self._options = options
        self._open: list[Worker] = []

    def spec(self, options: dict[str, Any]) -> ModelSpec:
        """The tiny random model, or none."""
        if self._directory is None:
            return resolve("sim", "sim", options)
        return ModelSpec("tiny", self._directory, options["max_model_len"], 1, frozenset(), "", None)

    async def worker(self, eos_ids: frozenset[int] | None = None, *, reads: bool = True, **options: Any) -> Worker:
        """A started engine. Options are those that engines have in common."""
        chosen = {**SIZES, **(SIM_OPTIONS if self._directory is None else {}), **self._options, **options}
        spec = self.spec(chosen)
        if eos_ids is not None:
            spec = replace(spec, eos_ids=eos_ids)
        if self.kind == "vllm":
            engine = await VllmPool.engine(spec, chosen)
        else:
            engine = open_engine(ScenarioSettings(model="any", engine=self.kind, engine_options=chosen), spec)
            if isinstance(engine, Staged):
                engine.stage(SharedArena.arena())
            await engine.start()
        worker = Worker(engine, reads=reads)
        self._open.append(worker)
        return worker

    async def close(self) -> None:
        """Close all, and look for what they have left."""
        for worker in self._open:
            if self.kind == "vllm":
                await worker.leave()
                await VllmPool.give_back(worker.engine)
            else:
                await worker.close()
        SharedArena.forget()


@asynccontextmanager
async def house(kind: str, directory: Path | None, **options: Any) -> AsyncIterator[House]:
    """For the time of one test."""
    made = House(kind, directory, **options)
    try:
        yield made
    finally:
        await made.close()
