"""An engine's decisions around its executor: who is in, which step comes next, which tokens come out. One thread's own.

Owns executor and scheduler. Takes and returns plain values; knows nothing of asyncio.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.engine import EngineLoad, Prefilled, Sampled, Sequence, Step
from shared.engine.sampling.draw import Draw, Drawn, sample
from shared.engine.sampling.masks import Bits, Masks
from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.device import DTYPES, resolve
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.scheduler import Plan, Scheduler
from shared.engine.torch_engine.sequence import Run, check
from shared.engine.torch_engine.sizing import engine_info, kv_layout
from shared.errors import BadRequest, BatonError, EngineFailed, KvRefused, Overloaded
from shared.kv.arena import Arena
from shared.text.matching import Matcher


@dataclass(slots=True)
class Outcome:
    """What one step brought."""

    prefilled: list[tuple[str, Prefilled]] = field(default_factory=list)
    unfilled: list[tuple[str, BatonError]] = field(default_factory=list)  # prompts that failed
    grown: list[str] = field(default_factory=list)  # prompts of which more is computed, and somebody waits for it
    step: Step = field(default_factory=Step)  # of the decoding sequences


class Runner:
    """Constructed in the thread that runs it. Raises ConfigError or EngineFailed when the model cannot be served."""

    def __init__(self, directory: Path, options: EngineOptions, eos_ids: frozenset[int]) -> None:
        self._device = resolve(options.device, options.threads)
        self._architecture = read_architecture(directory)
        dtype = self._device.default_dtype if options.dtype == "auto" else DTYPES[options.dtype]
        layout = kv_layout(directory, self._architecture, options, str(dtype).removeprefix("torch."))
        self.info = engine_info(directory.name, self._architecture, options, layout, eos_ids=eos_ids)
        self._executor = Executor(
            directory,
            self._architecture,
            self._device,
            dtype,
            quantization=options.quantization,
            layout=layout,
            blocks=self.info.blocks,
        )
        self._blocks = Blocks(self.info.blocks)
        self._scheduler = Scheduler(
            self._blocks,
            block_size=options.block_size,
            max_sequences=options.max_num_seqs,
            chunk=options.prefill_chunk,
            prefix_cache=options.enable_prefix_cache,
        )
        self._masks = Masks()
        self._steps = 0

    @property
    def idle(self) -> bool:
        """Nothing to step."""
        return self._scheduler.idle

    @property
    def load(self) -> EngineLoad:
        """Readable from any thread."""
        return EngineLoad(len(self._scheduler), self._blocks.free, self._steps)

    def cached(self, tokens: list[int]) -> int:
        """Count the leading tokens that the prefix cache has. Readable from any thread."""
        return self._scheduler.cached(tokens)

    def stage(self, arena: Arena, nbytes: int) -> None:
        """Give the arena memory on the device, where it has any use there. Raises EngineFailed."""
        self._executor.stage(arena, nbytes)

    def add_prefill(
        self, sequence: Sequence, buffer: memoryview, matcher: Matcher | None = None, *, grows: bool = False
    ) -> None:
        """Take in a prompt; the matcher is of the sequence's constraint. Raises BadRequest or Overloaded."""
        check(sequence, self.info, self._architecture.vocabulary)
        expected = self.info.kv_bytes(len(sequence.tokens))
        if buffer.nbytes != expected or buffer.readonly:
            raise BadRequest(f"the KV buffer must be writable and have {expected} bytes; it has {buffer.nbytes}")
        self._scheduler.add_prefill(Run(sequence, buffer, grows, matcher))

    def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview, matcher: Matcher | None = None) -> None:
        """Take in a sequence with its KV. Raises BadRequest, Overloaded or KvRefused."""
        check(sequence, self.info, self._architecture.vocabulary)
        if kv_tokens != len(sequence.tokens) - 1 or kv_tokens < 1:
            raise KvRefused("length", f"KV of {kv_tokens} tokens cannot continue {len(sequence.tokens)} tokens")
        if buffer.nbytes != self.info.kv_bytes(kv_tokens):
            raise KvRefused("length", f"{buffer.nbytes} bytes are not the KV of {kv_tokens} tokens")
        run = Run(sequence, matcher=matcher)
        self._scheduler.add_decode(run, kv_tokens)
        self._executor.take_in(run.blocks, kv_tokens, buffer)

    def release(self, key: str) -> None:
        """Forget a sequence; unknown keys are fine."""
        self._scheduler.drop(key)

    def step(self) -> Outcome:
        """Run what the scheduler picks and sample."""
        plan = self._scheduler.schedule()
        outcome = Outcome(step=Step(failed=[(run.key, _pushed_out()) for run in plan.preempted]))
        if plan:
            self._compute(plan, outcome)
        return outcome

    def export(self, key: str) -> None:
        """Gather a completed prompt's KV into its buffer and give its blocks back."""
        run = self._scheduler.run(key)
        if run is not None and run.buffer is not None:
            self._gather(run, run.buffer, len(run.blocks))
            self._scheduler.drop(key)

    def export_more(self, key: str) -> int:
        """Gather what is whole of a growing prompt's KV; how many of its leading tokens are in the buffer now."""
        run = self._scheduler.run(key)
        if run is None or run.buffer is None:
            return 0
        block_tokens = self.info.block_tokens
        self._gather(run, run.buffer, run.computed // block_tokens)
        return run.exported * block_tokens

    def _gather(self, run: Run, buffer: memoryview, blocks: int) -> None:
        """Copy blocks up to that one into the buffer, but for those that are there already."""
        if blocks <= run.exported:
            return
        size = self.info.block_bytes
        with buffer[run.exported * size : blocks * size] as part:
            # what grows is pushed from the host while it does
            self._executor.export(run.blocks[run.exported : blocks], part, in_host=run.grows)
        run.exported = blocks

    def close(self) -> None:
        """Free the device."""
        self._executor.close()

    def _compute(self, plan: Plan, outcome: Outcome) -> None:
        logits, samples = self._executor.forward(plan)
        bound = {place: run.bound(self.info.eos_ids) for place, run in enumerate(samples)}
        constrained = {place: one for place, one in bound.items() if one is not None}
        allowed = self._masks.allowed(constrained)  # an accelerator computes meanwhile
        draws = [self._draw(run, allowed.rows.get(place)) for place, run in enumerate(samples)]
        with torch.inference_mode():
            drawn = sample(logits, draws, self._device)
        self._scheduler.advance(plan)
        self._steps += 1
        outcome.grown += [chunk.run.key for chunk in plan.chunks if chunk.run.grows and not chunk.completes]
        for place, (run, what) in enumerate(zip(samples, drawn, strict=True)):
            try:
                self._settle(run, what, allowed.refused.get(place), outcome)
            except BatonError as error:
                failed = outcome.step.failed if run.buffer is None else outcome.unfilled
                failed.append((run.key, error))
                self._scheduler.drop(run.key)

    def _draw(self, run: Run, allowed: Bits | None) -> Draw:
        """What the run's next token is to be. A row of allowed tokens has the bans in it."""
        banned = run.banned(self.info.eos_ids) if allowed is None else ()
        return Draw(run.request.sampling, len(run.tokens), run.history, banned, allowed)

    def _settle(self, run: Run, drawn: Drawn, refusal: BadRequest | None, outcome: Outcome) -> None:
        """Append the token and see whether it ends the sequence. Raises why it fails instead."""
        if refusal is not None:
            raise refusal
        if drawn.token_id < 0:
            raise EngineFailed("the model's output is not a number")
        run.append(drawn.token_id, self.info.eos_ids)
        finish, stop_token = run.ending(self.info)
        sampled = Sampled(run.key, drawn.token_id, finish, stop_token, drawn.alternatives)
        if run.buffer is not None:
            outcome.prefilled.append((run.key, Prefilled(sampled, run.cached)))
            return
        outcome.step.sampled.append(sampled)
        if finish is not None:
            self._scheduler.drop(run.key)


def _pushed_out() -> BatonError:
    return Overloaded("pushed out of the batch: the engine has no free KV block")
