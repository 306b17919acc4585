"""A step does the same work however many sequences have come and gone before it, and nothing is kept of these."""

import asyncio
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from shared.engine import Sequence, Step
from shared.engine.sim_engine.engine import SimEngine
from shared.engine.sim_engine.held import Held
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.runner import Runner
from shared.engine.torch_engine.sequence import Run
from shared.models import resolve
from tests.tiny_models import make
from tests.torch_rig import sequence

BATCH = 16
PROMPT = 6
FEW, MANY = 50, 5000


def calls(work: Callable[[], object]) -> int:
    """How many functions are called by it, of Python and of C."""
    number = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return number


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


class Engine(Protocol):
    """`kept` is what an engine holds of a sequence."""

    kept: type

    @property
    def busy(self) -> bool: ...

    def begin(self, one: Sequence) -> None: ...
    def step(self) -> Step: ...
    def close(self) -> None: ...


class Torch:
    """Sequences go through prefill and decode of one runner; the cache is too small for all of their prefixes."""

    kept = Run

    def __init__(self, directory: Path) -> None:
        make("llama", directory, num_hidden_layers=1, vocab_size=40)
        options = {"block_size": 4, "num_blocks": 200, "max_num_seqs": BATCH, "prefill_chunk": 64}
        self.runner = Runner(directory, read_options(options), frozenset())

    @property
    def busy(self) -> bool:
        return not self.runner.idle

    def begin(self, one: Sequence) -> None:
        buffer = memoryview(bytearray(self.runner.info.kv_bytes(PROMPT)))
        self.runner.add_prefill(one, buffer)
        while not (outcome := self.runner.step()).prefilled:
            pass
        self.runner.export(one.key)
        first = outcome.prefilled[0][1].first
        tokens = [*one.tokens, first.token_id]
        self.runner.insert(Sequence(one.key, tokens, PROMPT, one.sampling, one.stopping), PROMPT, buffer)

    def step(self) -> Step:
        return self.runner.step().step

    def close(self) -> None:
        self.runner.close()


class Sim:
    """The same of the engine without a model."""

    kept = Held

    def __init__(self, directory: Path) -> None:
        options = {"decode_step_ms": 0, "prefill_ms": [0, 0, 0], "max_num_seqs": BATCH, "kv_bytes_per_token": 8}
        self.engine = SimEngine(resolve("gemma-3-270m", "sim", {}), options)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.engine.start())
        self.steps = self.engine.steps()

    @property
    def busy(self) -> bool:
        return self.engine.load().sequences > 0

    def begin(self, one: Sequence) -> None:
        self.loop.run_until_complete(self._begin(one))

    async def _begin(self, one: Sequence) -> None:
        buffer = memoryview(bytearray(self.engine.info.kv_bytes(PROMPT)))
        first = await self.engine.prefill(one, buffer)
        await self.engine.exported(one.key)
        await self.engine.release(one.key)
        tokens = [*one.tokens, first.first.token_id]
        await self.engine.insert(Sequence(one.key, tokens, PROMPT, one.sampling, one.stopping), PROMPT, buffer)

    def step(self) -> Step:
        return self.loop.run_until_complete(anext(self.steps))

    def close(self) -> None:
        self.loop.run_until_complete(self.steps.aclose())  # type: ignore[attr-defined]
        self.loop.run_until_complete(self.engine.close())
        self.loop.close()


def end(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def come_and_go(engine: Engine, first: int, last: int) -> None:
    for start in range(first, last, BATCH):
        for number in range(start, min(start + BATCH, last)):
            tokens = [3 + (number * place) % 37 for place in range(PROMPT)]
            engine.begin(sequence(f"brief {number}", tokens, max_tokens=2))
        end(engine)


def counted(engine: Engine) -> list[int]:
    """The calls of each step of a whole batch, which then leaves."""
    for number in range(BATCH):
        engine.begin(sequence(str(number), list(range(3, 3 + PROMPT)), max_tokens=40))
    numbers = [calls(engine.step) for _ in range(9)]
    end(engine)
    return numbers


@pytest.mark.parametrize("kind", [pytest.param(Torch, marks=pytest.mark.long), Sim])
def test_a_step_costs_the_same_after_5000_sequences_as_after_50(kind: Any, tmp_path: Path) -> None:
    engine: Engine = kind(tmp_path)
    try:
        come_and_go(engine, 0, FEW)
        before = min(counted(engine))  # the least: now and then a timer of the event loop falls into a step
        kept = alive(engine.kept)
        come_and_go(engine, FEW, MANY)
        assert min(counted(engine)) == before > BATCH
        assert alive(engine.kept) <= kept
    finally:
        engine.close()
