"""The Engine protocol without a model: for fault tests, load tests, and fleets that no machine could compute.

Owns the blocks, the batch and the clock of its steps. Prompts take their time side by side, as if each were part of the
same batch, or so many at a time in the order of arrival. The decode batch takes one step at a time, when its reader
asks and no prompt is computed: a reader that falls behind holds the engine up, and nothing is queued. Keeps no KV rows,
only their digest, once they have left or arrived.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import Any, Final

from shared.engine import EngineInfo, EngineLoad, Growth, Prefilled, Sequence, Step
from shared.engine.sim_engine.chain import Vocabulary, compute, read_rows, write_rows
from shared.engine.sim_engine.held import Held
from shared.engine.sim_engine.options import SimOptions, read_options
from shared.engine.sim_engine.pacing import Lanes, maybe_in_thread, pass_step, pass_time, pieces
from shared.engine.sim_engine.setup import info_of, tokens_of
from shared.engine.torch_engine.blocks import Blocks, digests
from shared.errors import BadRequest, BatonError, Cancelled, ContextTooLong, EngineFailed, KvRefused, Overloaded
from shared.models.spec import ModelSpec
from shared.text.matching import Grammars, Matcher
from shared.text.tokenizer import Tokenizer

INLINE_BYTES: Final = 1 << 17
"""KV buffers up to this size are filled and read on the loop: quicker than a thread could be asked."""
INLINE_TOKENS: Final = 1024


class SimEngine:
    """Runs what `shared.engine.sim_engine.chain` defines, at the pace of its options."""

    def __init__(self, spec: ModelSpec, engine_options: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._options: SimOptions = read_options(engine_options)
        self._blocks = Blocks(self._options.blocks)
        self._vocabulary: Vocabulary | None = None
        self._grammars: Grammars | None = None
        self._held: dict[str, Held] = {}
        self._running: dict[str, Held] = {}  # the decode batch, oldest first
        self._steps = 0
        self._prompts: dict[str, Held] = {}  # that are computed now
        self._lanes = Lanes(self._options.prefill_batch)
        self._closed = asyncio.Event()
        self._joined = asyncio.Event()
        self._info = info_of(spec, self._options)

    @property
    def info(self) -> EngineInfo:
        """See Engine."""
        return self._info

    def load(self) -> EngineLoad:
        """See Engine."""
        return EngineLoad(len(self._held), self._blocks.free, self._steps)

    def cached(self, tokens: list[int]) -> int:
        """See Engine."""
        if not self._options.enable_prefix_cache:
            return 0
        size = self._info.block_tokens
        return self._blocks.indexed(islice(digests(tokens, size), (len(tokens) - 1) // size)) * size

    async def start(self) -> None:
        """See Engine. Has something to load only where a tokenizer is given."""
        tokens = await asyncio.to_thread(tokens_of, self._spec, self._options, self._tokenizer)
        self._vocabulary, self._grammars = tokens

    async def close(self) -> None:
        """See Engine."""
        self._closed.set()
        self._joined.set()
        for key in list(self._held):
            await self.release(key)

    # ---- prefill -----------------------------------------------------------------------------------------------------

    async def prefill(self, sequence: Sequence, buffer: memoryview, growth: Growth | None = None) -> Prefilled:
        """See Engine."""
        vocabulary = self._started()
        tokens = sequence.tokens
        self._check_length(len(tokens))
        if len(buffer) != self._info.kv_bytes(len(tokens)):
            raise EngineFailed(f"the buffer for {len(tokens)} tokens has {len(buffer)} bytes")
        prefix = list(digests(tokens, self._info.block_tokens)) if self._options.enable_prefix_cache else []
        # one token at least is computed, as in an engine that needs its logits
        found = self._blocks.match(prefix[: (len(tokens) - 1) // self._info.block_tokens])
        held = self._take_in(sequence, len(tokens), found)
        held.buffer = buffer
        self._prompts[sequence.key] = held
        cached = len(found) * self._info.block_tokens
        try:
            loop = asyncio.get_running_loop()
            until = self._lanes.book(loop.time(), self._options.prefill_s(len(tokens) - cached))
            held.matcher = await self._matcher(sequence)
            held.numbers, held.state = await maybe_in_thread(len(tokens) > INLINE_TOKENS, lambda: compute(tokens))
            if growth is None:
                await self._pass_time(held, until)
            else:
                await self._grow(held, until, cached, growth)
            first = held.sample(vocabulary, self._info.eos_ids, self._info.context)
            self._steps += 1  # a busy prefill whose steps stood still would be taken for stuck
        except BaseException:
            await self._let_go(held)
            raise
        finally:
            self._prompts.pop(sequence.key, None)
            held.through.set()
        for block, digest in zip(held.blocks, prefix, strict=False):
            self._blocks.publish(block, digest)
        return Prefilled(first, cached)

    async def _grow(self, held: Held, until: float, cached: int, growth: Growth) -> None:
        """Pass a prompt's time, writing whole blocks of its KV as they come."""
        total = len(held.numbers)
        seconds = self._options.prefill_s(total - cached)
        for stop, share in pieces(cached, total, self._info.block_tokens):
            await self._pass_time(held, until - seconds * (1 - share))
            await self._write(held, stop)
            growth(stop)
        await self._pass_time(held, until)

    async def _pass_time(self, held: Held, until: float) -> None:
        """Return at that time. Raises Cancelled when the sequence is released first, EngineFailed at close."""
        await pass_time(held, until)
        self._still(held)

    async def _write(self, held: Held, stop: int) -> None:
        """Fill the buffer up to that row, in a thread where that takes long. Raises as `_pass_time` does."""
        buffer, width, rows = held.buffer, self._options.kv_bytes_per_token, range(held.written, stop)
        if held.working is None and buffer is not None:
            held.working = asyncio.ensure_future(
                maybe_in_thread(
                    len(rows) * width > INLINE_BYTES,
                    lambda: write_rows(buffer, held.numbers, width, lambda: held.wanted, rows=rows),
                )
            )
        if held.working is not None:
            await asyncio.shield(held.working)
        self._still(held)
        held.written, held.working = stop, None

    async def exported(self, key: str) -> None:
        """See Engine."""
        held = self._held.get(key)
        if held is None:
            self._started()
            raise Cancelled(f"the engine holds no sequence {key!r}")
        if held.buffer is not None:
            await self._write(held, len(held.numbers))
        held.buffer = None
        self._blocks.release(held.blocks)
        held.blocks = []

    # ---- decode ------------------------------------------------------------------------------------------------------

    async def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        """See Engine."""
        self._started()
        self._check_length(len(sequence.tokens))
        if kv_tokens < 1 or kv_tokens != len(sequence.tokens) - 1:
            raise KvRefused("length", f"{kv_tokens} tokens of KV came for a sequence of {len(sequence.tokens)} tokens")
        if len(buffer) != self._info.kv_bytes(kv_tokens):
            raise KvRefused("length", f"the KV buffer of {kv_tokens} tokens has {len(buffer)} bytes")
        held = self._take_in(sequence, kv_tokens + 1, [])
        width = self._options.kv_bytes_per_token
        try:
            reading = asyncio.ensure_future(
                maybe_in_thread(
                    len(buffer) > INLINE_BYTES, lambda: read_rows(buffer, kv_tokens, width, lambda: held.wanted)
                )
            )
            held.working = reading
            held.state = await asyncio.shield(reading)
            held.matcher = await self._matcher(sequence)
            self._still(held)
        except BaseException:
            await self._let_go(held)
            raise
        held.newest = sequence.tokens[-1]
        self._running[sequence.key] = held
        self._joined.set()

    async def steps(self) -> AsyncIterator[Step]:
        """See Engine."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._closed.is_set():
            if not self._running:
                self._joined.clear()
                await self._joined.wait()
                due = loop.time()
                continue
            batch = list(self._running.values())  # who joins from here on is of the next step, as in other engines
            step_s = self._options.decode_step_s(len(batch))
            due = max(due + step_s, loop.time())
            await pass_step(due if step_s else None, self._closed)
            for held in list(self._prompts.values()):  # one device: while it computes a prompt, nothing else is
                await held.through.wait()
            if any(held.wanted for held in batch) and not self._closed.is_set():
                yield self._step(batch)

    def _step(self, batch: list[Held]) -> Step:
        """One token for every running sequence that finds a block for it; without one the youngest has to go."""
        vocabulary = self._started()
        step = Step()
        for held in batch:
            while held.wanted and len(held.blocks) * self._info.block_tokens < held.length:
                taken = self._blocks.allocate(1)
                if taken is None:
                    youngest = next(reversed(self._running.values()))
                    step.failed.append((youngest.sequence.key, Overloaded("the engine ran out of KV blocks")))
                    self._drop(youngest)
                else:
                    held.blocks += taken
            if held.wanted:
                self._advance(held, vocabulary, step)
        self._steps += 1
        return step

    def _advance(self, held: Held, vocabulary: Vocabulary, step: Step) -> None:
        """One token of one sequence."""
        held.compute_newest()
        try:
            sampled = held.sample(vocabulary, self._info.eos_ids, self._info.context)
        except BadRequest as error:
            step.failed.append((held.sequence.key, error))
            self._drop(held)
            return
        step.sampled.append(sampled)
        if sampled.finish is not None:
            self._drop(held)

    # ---- both --------------------------------------------------------------------------------------------------------

    async def release(self, key: str) -> None:
        """See Engine."""
        held = self._held.get(key)
        if held is not None:
            await self._let_go(held)

    async def _let_go(self, held: Held) -> None:
        """Drop a sequence, and return when no thread is at its buffer any more."""
        self._drop(held)
        if held.working is not None:  # it stops at its next look
            await asyncio.wait([held.working])

    def _drop(self, held: Held) -> None:
        if not held.wanted:
            return
        held.gone.set()
        held.through.set()
        self._held.pop(held.sequence.key, None)
        self._running.pop(held.sequence.key, None)
        self._blocks.release(held.blocks)
        held.blocks = []

    def _take_in(self, sequence: Sequence, tokens: int, found: list[int]) -> Held:
        """Give a sequence its place and its blocks, `found` among them, or give those back and raise."""
        taken = None
        refusal: BatonError | None = None
        number = self._info.blocks_for(tokens) - len(found)
        if sequence.key in self._held:
            refusal = BadRequest(f"the engine already holds a sequence {sequence.key!r}")
        elif len(self._held) >= self._info.max_sequences:
            refusal = Overloaded(f"all {self._info.max_sequences} places in the batch are taken")
        else:
            taken = self._blocks.allocate(number)
        if taken is None:
            self._blocks.release(found)
            raise refusal or Overloaded(f"{number} KV blocks are needed and {self._blocks.free} are free")
        held = self._held[sequence.key] = Held(sequence, length=tokens, blocks=found + taken)
        return held

    async def _matcher(self, sequence: Sequence) -> Matcher | None:
        """What follows the sequence's constraint, made in a thread. Raises BadRequest."""
        constraint = sequence.sampling.constraint
        if constraint is None or self._grammars is None:
            return None
        generated = sequence.tokens[sequence.prompt_tokens :]
        return await asyncio.to_thread(self._grammars.matcher, constraint, generated)

    def _started(self) -> Vocabulary:
        if self._closed.is_set() or self._vocabulary is None:
            raise EngineFailed(f"the engine {'is closed' if self._closed.is_set() else 'has not started'}", fatal=True)
        return self._vocabulary

    def _still(self, held: Held) -> None:
        """Raise unless the sequence is still wanted."""
        if not held.wanted:
            self._started()
            raise Cancelled(f"the sequence {held.sequence.key!r} was released")

    def _check_length(self, tokens: int) -> None:
        if not tokens:
            raise BadRequest("a sequence needs a token")
        if tokens >= self._info.context:
            raise ContextTooLong(f"{tokens} tokens leave no room in a context of {self._info.context}")
