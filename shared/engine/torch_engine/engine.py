"""The Engine protocol: the event loop's side of the torch engine.

Owns the answers that are due to callers. Commands go to the worker's thread and are taken between steps; reports come
back by `call_soon_threadsafe`. The loop never waits for torch.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.engine import EngineInfo, EngineLoad, Growth, Prefilled, Sequence, Step
from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.health import devices_of, probe
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.runner import Outcome, Runner
from shared.engine.torch_engine.worker import (
    Answer,
    Command,
    Insert,
    Prefill,
    Release,
    Report,
    Stage,
    Stop,
    Worker,
)
from shared.errors import BadRequest, BatonError, Cancelled, EngineFailed
from shared.kv.arena import Arena
from shared.messages import Health
from shared.text.matching import Grammars, Matcher
from shared.text.tokenizer import Tokenizer

CLOSE_S: Final = 60.0
"""The longest wait for the step that runs while the engine is closed."""


@dataclass(slots=True)
class _Held:
    """A sequence, seen from the loop: what callers wait for."""

    first: asyncio.Future[Prefilled]
    exported: asyncio.Future[None]
    growth: Growth | None = None
    released: bool = False  # somebody has begun to

    def fail(self, error: BatonError) -> None:
        _fail(self.first, error)
        _fail(self.exported, error)


class TorchEngine:
    """Serves one Hugging Face directory. `eos_ids` replaces what the directory says, where it is not empty.

    Without a tokenizer, which `tokenizer` opens at start, it serves everything but constraints.
    """

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, Any],
        eos_ids: frozenset[int] = frozenset(),
        tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        checked = read_options(options)
        self._directory = directory
        self._options = checked
        self._eos_ids = eos_ids
        self._tokenizer = tokenizer
        self._grammars: Grammars | None = None
        self._worker = Worker(build=self._build, post=self._post)
        self._held: dict[str, _Held] = {}
        self._asked: set[Answer] = set()
        self._unread: deque[Step] = deque()
        self._news = asyncio.Event()
        self._ended: EngineFailed | None = None  # why no command is taken any more
        self._closed = False
        self._loop: asyncio.AbstractEventLoop  # from `start` on
        self._ready: Answer | None = None

    @property
    def info(self) -> EngineInfo:
        """Valid after `start`."""
        if self._worker.runner is None:
            raise EngineFailed("the engine has not started")
        return self._worker.runner.info

    def load(self) -> EngineLoad:
        """Now."""
        return self._worker.load

    def cached(self, tokens: list[int]) -> int:
        """See Engine."""
        return self._worker.runner.cached(tokens) if self._worker.runner is not None else 0

    @property
    def devices(self) -> frozenset[str]:
        """See shared.engine.Probed."""
        return devices_of(self._options.device)

    def probe(self) -> tuple[Health, str]:
        """See shared.engine.Probed."""
        return probe(self._options.device)

    async def start(self) -> None:
        """Load the model in the engine's own thread. Raises EngineFailed (fatal) when it cannot."""
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._worker.start()
        reading = asyncio.ensure_future(asyncio.to_thread(self._read_tokens))
        try:
            await self._ready
        finally:
            await asyncio.wait([reading])
        self._grammars = reading.result()

    def _read_tokens(self) -> Grammars | None:
        """While the model is loaded: afterwards it would hold up streams."""
        if self._tokenizer is None:
            return None
        return Grammars(self._tokenizer(), read_architecture(self._directory).vocabulary)

    async def stage_on_device(self, arena: Arena, nbytes: int) -> None:
        """See shared.engine.OnDevice."""
        await self._ask(Stage(arena, nbytes))

    async def close(self) -> None:
        """Stop after the step that runs now. Raises EngineFailed when that takes too long."""
        self._closed = True
        self._worker.send(Stop())
        stopped = await asyncio.to_thread(self._worker.join, CLOSE_S)
        self._end(EngineFailed("the engine is closed", fatal=True))
        if not stopped:
            raise EngineFailed(f"the engine's thread did not end within {CLOSE_S:g} s", fatal=True)

    async def prefill(self, sequence: Sequence, buffer: memoryview, growth: Growth | None = None) -> Prefilled:
        """Run the prompt and sample the next token."""
        held = self._hold(sequence.key)
        held.growth = growth
        try:
            matcher = await self._matcher(sequence, held)
            await self._ask(Prefill(sequence, buffer, matcher, grows=growth is not None))
            return await held.first
        except BaseException:
            await self.release(sequence.key)  # refused, failed or cancelled: nothing of the key stays
            raise
        finally:
            del buffer, held  # an exception keeps this frame, and must not keep the view

    async def exported(self, key: str) -> None:
        """Return once the buffer is complete. Raises Cancelled when the sequence is or gets released."""
        held = self._held.get(key)
        if held is None:
            raise self._ended or Cancelled(f"the engine holds no sequence {key!r}")
        await asyncio.shield(held.exported)

    async def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        """Scatter the buffer and join the running batch."""
        held = self._hold(sequence.key)
        try:
            await self._ask(Insert(sequence, kv_tokens, buffer, await self._matcher(sequence, held)))
        except BaseException:
            await self.release(sequence.key)
            raise
        finally:
            del buffer, held

    async def _matcher(self, sequence: Sequence, held: _Held) -> Matcher | None:
        """What follows the sequence's constraint, made in a thread. Raises BadRequest, or Cancelled when released."""
        constraint = sequence.sampling.constraint
        if constraint is None:
            return None
        if self._grammars is None:
            raise BadRequest("this engine was started without a tokenizer, so it can follow no constraint")
        generated = sequence.tokens[sequence.prompt_tokens :]
        matcher = await asyncio.to_thread(self._grammars.matcher, constraint, generated)
        if self._ended is not None or held.released:
            raise self._ended or Cancelled(f"the sequence {sequence.key!r} was released")
        return matcher

    async def release(self, key: str) -> None:
        """Drop a sequence. When this returns, the thread has let go of it and of its buffer."""
        held = self._held.get(key)
        if held is None:
            return
        held.released = True
        try:
            if self._ended is None:
                await self._ask(Release(key))
        except EngineFailed:
            pass  # died meanwhile, so it holds nothing any more
        finally:
            if self._held.get(key) is held:
                del self._held[key]
            held.fail(Cancelled(f"the sequence {key!r} was released"))

    async def steps(self) -> AsyncIterator[Step]:
        """Every step's tokens, in order."""
        while True:
            while self._unread:
                self._worker.has_read()
                yield self._unread.popleft()
            if self._ended is not None:
                if self._closed:
                    return
                raise self._ended
            self._news.clear()
            await self._news.wait()

    def _hold(self, key: str) -> _Held:
        if self._ended is not None:
            raise self._ended
        if key in self._held:
            raise BadRequest(f"the engine already holds a sequence {key!r}")
        held = self._held[key] = _Held(self._loop.create_future(), self._loop.create_future())
        return held

    async def _ask(self, command: Command) -> None:
        """Wait until the thread has done it. Raises what it refuses with."""
        answer: Answer = self._loop.create_future()
        self._asked.add(answer)
        self._worker.send(command, answer)
        del command
        try:
            await answer
        finally:
            self._asked.discard(answer)

    def _build(self) -> Runner:
        """Called in the thread."""
        return Runner(self._directory, self._options, self._eos_ids)

    def _post(self, report: Report) -> None:
        """Called by the thread."""
        self._loop.call_soon_threadsafe(self._take, report)

    def _take(self, report: Report) -> None:
        if self._ended is not None:  # what was computed after that may be rubbish
            return
        for answer, refusal in report.answers:
            if refusal is not None:
                _fail(answer, refusal)
            elif not answer.done():
                answer.set_result(None)
        if report.outcome is not None:
            self._settle(report.outcome)
        self._tell_growth(report.grown)
        for key in report.exported:
            held = self._held.get(key)
            if held is not None and not held.exported.done():
                held.exported.set_result(None)
        if report.ready and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        if report.ended is not None:
            self._end(report.ended)

    def _tell_growth(self, grown: list[tuple[str, int]]) -> None:
        for key, tokens in grown:
            held = self._held.get(key)
            if held is not None and held.growth is not None and not held.released and tokens:
                held.growth(tokens)

    def _settle(self, outcome: Outcome) -> None:
        """Answer the prefills and keep the step for its reader."""
        for key, prefilled in outcome.prefilled:
            held = self._held.get(key)
            if held is not None and not held.first.done():
                held.first.set_result(prefilled)
        for key, error in outcome.unfilled:
            held = self._held.get(key)
            if held is not None:
                held.fail(error)
        step = outcome.step
        for key, _ in step.failed:
            self._held.pop(key, None)
        for sampled in step.sampled:
            if sampled.finish is not None:
                self._held.pop(sampled.key, None)
        if step.sampled or step.failed:
            self._unread.append(step)
            self._news.set()

    def _end(self, why: EngineFailed) -> None:
        """Everyone who waits is told."""
        self._ended = self._ended or why
        for answer in (*self._asked, *([self._ready] if self._ready else [])):
            _fail(answer, why)
        for held in self._held.values():
            held.fail(why)
        self._news.set()


def _fail(future: asyncio.Future[Any], error: BatonError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: it need not have a waiter
