"""An engine's decisions around its executor: who is in, which step comes next, which tokens come out. One thread's own.

Owns executor and scheduler. Takes and returns plain values; knows nothing of asyncio.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared.engine import Alternatives, EngineLoad, Prefilled, Sampled, Sequence, Step
from shared.engine.sampling.endings import ends_of
from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.computing import Computes
from shared.engine.torch_engine.device import DTYPES, resolve
from shared.engine.torch_engine.drawing import Drawing
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.flight import Flight, may_wait
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.scheduler import Plan, Scheduler
from shared.engine.torch_engine.sequence import Run, check, limit_of
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

    def __bool__(self) -> bool:
        return bool(self.step.sampled or self.step.failed or self.prefilled or self.unfilled or self.grown)


class Runner:
    """Constructed in the thread that runs it. Raises ConfigError or EngineFailed when the model cannot be served."""

    def __init__(
        self,
        directory: Path,
        options: EngineOptions,
        eos_ids: frozenset[int],
        executor: Callable[..., Computes] = Executor,
    ) -> None:
        self._device = resolve(options.device, options.threads, options.cpus)
        self._architecture = read_architecture(directory)
        dtype = self._device.default_dtype if options.dtype == "auto" else DTYPES[options.dtype]
        layout = kv_layout(directory, self._architecture, options, str(dtype).removeprefix("torch."))
        self.info = engine_info(directory.name, self._architecture, options, layout, eos_ids=eos_ids)
        self._executor = executor(
            directory,
            self._architecture,
            self._device,
            dtype,
            quantization=options.quantization,
            layout=layout,
            blocks=self.info.blocks,
            sequences=options.max_num_seqs,
        )
        if options.cuda_graphs:
            self._executor.capture(options.max_num_seqs)
        self._blocks = Blocks(self.info.blocks)
        self._scheduler = Scheduler(
            self._blocks,
            block_size=options.block_size,
            max_sequences=options.max_num_seqs,
            chunk=options.prefill_chunk,
            prefix_cache=options.enable_prefix_cache,
        )
        self._drawing = Drawing(self._device)
        self._flight: Flight | None = None  # launched and not read
        self._steps = 0

    @property
    def idle(self) -> bool:
        """Nothing to step, and nothing to read of a step."""
        return self._flight is None and self._scheduler.idle

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
        self._scheduler.add_prefill(self._run(sequence, matcher, buffer, grows=grows))

    def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview, matcher: Matcher | None = None) -> None:
        """Take in a sequence with its KV. Raises BadRequest, Overloaded or KvRefused."""
        check(sequence, self.info, self._architecture.vocabulary)
        if kv_tokens != len(sequence.tokens) - 1 or kv_tokens < 1:
            raise KvRefused("length", f"KV of {kv_tokens} tokens cannot continue {len(sequence.tokens)} tokens")
        if buffer.nbytes != self.info.kv_bytes(kv_tokens):
            raise KvRefused("length", f"{buffer.nbytes} bytes are not the KV of {kv_tokens} tokens")
        run = self._run(sequence, matcher)
        self._scheduler.add_decode(run, kv_tokens)
        self._executor.take_in(run.blocks, kv_tokens, buffer)

    def release(self, key: str) -> None:
        """Forget a sequence; unknown keys are fine."""
        self._scheduler.drop(key)

    def step(self) -> Outcome:
        """Launch the next step and read the one before: there may be none, and nothing comes of the call.

        A step that the next one depends on is read before that is launched; each of them, on a device that does not
        overlap.
        """
        flight = self._flight
        # what a sequence that ends gives back may be what another is pushed out for
        if flight is not None and (not flight.waits or self._scheduler.short):
            self._flight = None
            return self._land(flight, Outcome())
        plan = self._scheduler.schedule()
        outcome = Outcome(step=Step(failed=[(run.key, _pushed_out()) for run in plan.preempted]))
        self._flight = self._launch(plan) if plan else None
        if flight is None and self._flight is not None and not self._flight.waits:
            flight, self._flight = self._flight, None
        return outcome if flight is None else self._land(flight, outcome)

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

    def _run(
        self, sequence: Sequence, matcher: Matcher | None, buffer: memoryview | None = None, *, grows: bool = False
    ) -> Run:
        ends = ends_of(sequence.stopping, self.info.eos_ids)
        return Run(sequence, buffer, grows, matcher, ends, limit_of(sequence, self.info.context))

    def _launch(self, plan: Plan) -> Flight:
        """Have the plan computed. From here on it counts as done."""
        scores = self._executor.forward(plan)
        waits = self._executor.overlaps and may_wait(plan, scores.samples)
        grown = [chunk.run.key for chunk in plan.chunks if chunk.run.grows and not chunk.completes]
        self._scheduler.advance(plan)
        tokens, drawn = self._drawing.draw(scores.logits, scores.samples, scores.greedy)
        if waits:
            self._executor.keep(scores, tokens)
        return Flight(scores.samples, drawn, grown, waits)

    def _land(self, flight: Flight, outcome: Outcome) -> Outcome:
        """Wait for the step's tokens and settle them."""
        tokens, alternatives = flight.drawn.read()
        refused = flight.drawn.refused
        self._steps += 1
        outcome.grown += flight.grown
        for place, (run, token) in enumerate(zip(flight.samples, tokens, strict=True)):
            if not run.blocks:  # released meanwhile, or ended by the token before
                continue
            try:
                self._settle(run, token, alternatives.get(place), refused.get(place), outcome)
            except BatonError as error:
                failed = outcome.step.failed if run.buffer is None else outcome.unfilled
                failed.append((run.key, error))
                self._scheduler.drop(run.key)
        return outcome

    def _settle(
        self, run: Run, token: int, alternatives: Alternatives | None, refusal: BadRequest | None, outcome: Outcome
    ) -> None:
        """Append the token and see whether it ends the sequence. Raises why it fails instead."""
        if refusal is not None:
            raise refusal
        if token < 0:
            raise EngineFailed("the model's output is not a number")
        run.append(token)
        finish, stop_token = run.ending()
        sampled = Sampled(run.key, token, finish, stop_token, alternatives)
        if run.buffer is not None:
            outcome.prefilled.append((run.key, Prefilled(sampled, run.cached)))
            return
        outcome.step.sampled.append(sampled)
        if finish is not None:
            self._scheduler.drop(run.key)


def _pushed_out() -> BatonError:
    return Overloaded("pushed out of the batch: the engine has no free KV block")
