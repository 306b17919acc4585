"""The Engine protocol over vLLM: sequences become requests of its core, its steps become ours.

Owns what is sent to vLLM, and that a buffer's range is given up only when no process of vLLM touches it any more.
Everything runs on the event loop; vLLM computes in processes of its own.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from shared.engine import EngineInfo, EngineLoad, Growth, Prefilled, Sequence, Step
from shared.engine.vllm_engine.book import Book
from shared.engine.vllm_engine.buffers import Buffers
from shared.engine.vllm_engine.core import Core
from shared.engine.vllm_engine.feed import Feed
from shared.engine.vllm_engine.held import Held
from shared.engine.vllm_engine.hub import Hub
from shared.engine.vllm_engine.launching import launched
from shared.engine.vllm_engine.notes import Troubled
from shared.engine.vllm_engine.prefixes import Prefixes
from shared.engine.vllm_engine.probing import Devices
from shared.engine.vllm_engine.requests import Requests
from shared.engine.vllm_engine.setup import Setup
from shared.errors import BadRequest, Cancelled, EngineFailed, KvRefused
from shared.kv.arena import Arena
from shared.messages import Health
from shared.models.spec import ModelSpec
from shared.text.matching import Grammars, Matcher
from shared.text.tokenizer import Tokenizer

RELEASE_S: Final = 60.0
"""The longest wait for vLLM to let go of a sequence; an engine that takes longer is stuck."""

log = logging.getLogger(__name__)


class VllmEngine:
    """Serves one Hugging Face directory. Needs `stage` before `start`.

    `sends`: whether it may compute prompts for other engines; vLLM wants to know of one that only takes KV in.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: Mapping[str, Any],
        tokenizer: Callable[[], Tokenizer] | None = None,
        *,
        sends: bool = True,
    ) -> None:
        self._setup = Setup(spec, options, sends=sends)
        self._tokenizer = tokenizer
        self._grammars: Grammars | None = None
        self._feed = Feed()
        self._background: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._buffers: Buffers | None = None
        self._hub: Hub | None = None
        self._core: Core | None = None
        self._book: Book | None = None
        self._prefixes = Prefixes(0, 1)
        self._devices = Devices("cpu", 0, os.environ)
        self._requests: Requests

    @property
    def info(self) -> EngineInfo:
        """See Engine."""
        if self._book is None:
            raise EngineFailed("the engine has not started")
        return self._book.info

    def stage(self, arena: Arena) -> None:
        """See shared.engine.Staged."""
        self._buffers = Buffers(arena)

    def load(self) -> EngineLoad:
        """See Engine. Blocks are counted as if no two sequences shared any."""
        return EngineLoad(0, 0, 0) if self._book is None else self._book.load()

    def cached(self, tokens: list[int]) -> int:
        """See Engine. By what was computed here, for vLLM is not asked."""
        return self._prefixes.count(tokens)

    @property
    def devices(self) -> frozenset[str]:
        """See shared.engine.Probed."""
        return self._devices.names

    def probe(self) -> tuple[Health, str]:
        """See shared.engine.Probed."""
        return self._devices.probe()

    async def start(self) -> None:
        """Start vLLM, which takes from seconds to minutes. Raises ConfigError, or EngineFailed (fatal)."""
        arena = self._arena()
        self._hub = hub = Hub(lambda found, devices: self._setup.plan(found, arena, devices), self._troubled)
        self._background.append(hearing := asyncio.create_task(hub.run(), name="vllm notes"))
        tokens = asyncio.create_task(asyncio.to_thread(self._setup.languages, self._tokenizer), name="vllm tokenizer")
        try:
            self._core = core = await launched(self._setup, hub, hearing)
        finally:
            await asyncio.wait([tokens])
        hearing.add_done_callback(self._unheard)
        self._grammars, unsaid_id = tokens.result()
        options, info = self._setup.options, self._setup.info(hub.registrations, core.context)
        self._devices = Devices(core.platform, options.ranks, os.environ)
        self._prefixes = Prefixes(info.blocks if options.enable_prefix_cache else 0, info.block_tokens)
        self._requests = Requests(info.eos_ids, options.lora, unsaid_id)
        self._book = Book(info, core.vocabulary, self._prefixes)
        self._background.append(asyncio.create_task(self._read(core, self._book), name="vllm steps"))

    async def stage_on_device(self, arena: Arena, nbytes: int) -> None:
        """See shared.engine.OnDevice. The arena is the one that it was given by `stage`."""
        if arena is self._arena() and self._buffers and self._hub and self._core and self._core.platform == "cuda":
            paths = [Path(f"{self._hub.devices}-{one.rank}") for one in self._hub.registrations]
            await self._buffers.open_devices(paths, nbytes)

    async def close(self) -> None:
        """See Engine."""
        self._end(EngineFailed("the engine is closed", fatal=True), closed=True)
        running = [*self._background, *self._sending]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._buffers is not None:
            await self._buffers.close()
        if self._core is not None:
            await asyncio.to_thread(self._core.close)
        if self._hub is not None:
            self._hub.close()

    async def prefill(self, sequence: Sequence, buffer: memoryview, growth: Growth | None = None) -> Prefilled:
        """See Engine. `growth` is never called: vLLM's KV leaves once, when the prompt is complete."""
        held = self._started().enter(sequence, prefills=True)
        try:
            # what is pushed as it grows is pushed from host memory
            await self._send(held, buffer, len(sequence.tokens), may_stay=growth is None)
            return await asyncio.shield(held.first)
        except BaseException:
            await self.release(sequence.key)
            raise
        finally:
            del buffer  # an exception keeps this frame, and must not keep the view

    async def exported(self, key: str) -> None:
        """See Engine."""
        held = self._started().get(key)
        if held is None or held.passage is None:
            raise Cancelled(f"the engine holds no sequence {key!r}")
        await self._moved(held)
        held.exported = True
        if self._buffers is not None:
            self._buffers.complete(held)

    async def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        """See Engine."""
        if kv_tokens != len(sequence.tokens) - 1 or kv_tokens < 1:
            raise KvRefused("length", f"KV of {kv_tokens} tokens cannot continue {len(sequence.tokens)} tokens")
        held = self._started().enter(sequence, prefills=False)
        try:
            await self._send(held, buffer, kv_tokens)
            await self._moved(held)
        except BaseException:
            await self.release(sequence.key)
            raise
        finally:
            del buffer
        self._prefixes.add(sequence.tokens[:kv_tokens])

    def steps(self) -> AsyncIterator[Step]:
        """See Engine."""
        return self._feed.read()

    async def release(self, key: str) -> None:
        """See Engine. Waits until no process of vLLM reads or writes the sequence's buffer."""
        book = self._book
        held = None if book is None else book.get(key)
        if book is None or held is None:
            return
        held.released = True
        try:
            if self._feed.ended is None:
                await self._withdraw(held)
        finally:
            self._leave(book, held)

    async def _withdraw(self, held: Held) -> None:
        """Have vLLM let go of a sequence."""
        if held.sent is None or held.passage is None or self._core is None:
            return
        await asyncio.wait([held.sent])
        if held.sent.cancelled() or held.sent.exception() is not None:
            return
        if not held.finished:
            await self._core.abort([held.number])
        over, _ = await asyncio.wait([held.passage.over], timeout=RELEASE_S)
        if not over:
            self._end(EngineFailed(f"vLLM did not let go of a sequence within {RELEASE_S:g} s", fatal=True))

    def _leave(self, book: Book, held: Held) -> None:
        book.leave(held)
        hub, passage = self._hub, held.passage
        if hub is not None and passage is not None:  # an insert may still wait for it
            passage.over.add_done_callback(lambda _: hub.drop(held.number))

    async def _moved(self, held: Held) -> None:
        """Return once the buffer is complete, or no longer needed. Raises KvRefused, or Cancelled when released."""
        if held.passage is not None:
            await asyncio.shield(held.passage.moved)
        if held.released:
            raise Cancelled(f"the sequence {held.key!r} was released")

    async def _send(self, held: Held, buffer: memoryview, kv_tokens: int, *, may_stay: bool = False) -> None:
        """Make vLLM's request of it and send that, whatever becomes of the caller meanwhile."""
        book, core, hub, buffers = self._started(), self._core, self._hub, self._buffers
        if core is None or hub is None or buffers is None:
            raise AssertionError("a started engine has them")
        offset = buffers.check(buffer, kv_tokens, book.info)
        held.matcher = await self._matcher(held)
        held.number = book.number(held)
        transfer = buffers.transfer(held, offset, kv_tokens, book.info, may_stay=may_stay)
        request = self._requests.make(held, transfer, self.info.context)
        held.passage = hub.open(held.number)
        held.sent = self._spawn(core.add(request))
        await asyncio.wait([held.sent])
        if held.sent.cancelled():  # the engine was closed meanwhile
            self._started()
        held.sent.result()

    async def _matcher(self, held: Held) -> Matcher | None:
        """What follows the sequence's constraint, made in a thread. Raises BadRequest, or Cancelled when released."""
        constraint = held.sequence.sampling.constraint
        if constraint is None:
            return None
        if self._grammars is None:
            raise BadRequest("this engine was started without a tokenizer, so it can follow no constraint")
        generated = held.sequence.tokens[held.sequence.prompt_tokens :]
        matcher = await asyncio.to_thread(self._grammars.matcher, constraint, generated)
        self._started()
        if held.released:
            raise Cancelled(f"the sequence {held.key!r} was released")
        return matcher

    def _started(self) -> Book:
        if self._feed.ended is not None or self._book is None:
            raise self._feed.ended or EngineFailed("the engine has not started")
        return self._book

    def _arena(self) -> Arena:
        if self._buffers is None:
            raise EngineFailed("engine vllm starts with a staging arena", fatal=True)
        return self._buffers.arena

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what must be sent, kept until it is."""
        self._sending.add(task := asyncio.create_task(work, name="vllm send"))
        task.add_done_callback(self._sending.discard)
        return task

    async def _read(self, core: Core, book: Book) -> None:
        """Take the core's steps until it dies."""
        try:
            while True:
                step, ended = book.take(await core.outputs())
                self._deliver(core, book, step, ended)
        except EngineFailed as error:
            self._end(error)
        except Exception as error:
            log.exception("vLLM's answer was not understood")
            self._end(EngineFailed(f"vLLM's answer was not understood: {error!r}", fatal=True))

    def _unheard(self, hearing: asyncio.Task[None]) -> None:
        if not hearing.cancelled():  # as `close` does
            self._end(EngineFailed(f"vLLM's notes are read no longer: {hearing.exception()!r}", fatal=True))

    def _troubled(self, note: Troubled) -> None:
        """The sampler failed with these sequences; another attempt may go well."""
        book, core = self._book, self._core
        if book is None or core is None:
            return
        step, ended = book.fail(note.key, EngineFailed(f"vLLM's sampler failed: {note.why}"))
        self._deliver(core, book, step, ended)

    def _deliver(self, core: Core, book: Book, step: Step, ended: list[Held]) -> None:
        running = [held.number for held in ended if not held.finished]
        if running:  # the text is complete, which vLLM cannot know
            _ = self._spawn(core.abort(running))
        for held in ended:
            self._leave(book, held)
        self._feed.put(step)

    def _end(self, why: EngineFailed, *, closed: bool = False) -> None:
        """Everyone who waits is told."""
        self._feed.end(why, closed=closed)
        for held in self._book or ():
            held.fail(why)
        if self._hub is not None:
            self._hub.fail(why)
