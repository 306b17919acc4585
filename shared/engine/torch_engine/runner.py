"""Everything that touches torch in one engine: loads the model, runs steps, moves KV in and out. One thread's own.

Owns model, cache and scheduler. Takes and returns plain values; knows nothing of asyncio.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.engine import EngineInfo, EngineLoad, Prefilled, Sampled, Sequence
from shared.engine.torch_engine.architecture import Architecture, read_architecture
from shared.engine.torch_engine.attention import Geometry
from shared.engine.torch_engine.batch import lay_out
from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import DTYPES, MEBIBYTE, resolve
from shared.engine.torch_engine.model import Loader
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.penalties import History, penalises
from shared.engine.torch_engine.sampling import Draw, Drawn, sample
from shared.engine.torch_engine.scheduler import Plan, Scheduler
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.weights import Checkpoint, identity
from shared.errors import BadRequest, BatonError, ConfigError, ContextTooLong, EngineFailed, KvRefused, Overloaded
from shared.kv.layout import KvLayout
from shared.messages import Finish


@dataclass(slots=True)
class Outcome:
    """What one step brought."""

    prefilled: list[tuple[str, Prefilled]] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)
    failed: list[tuple[str, BatonError]] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)  # which of the failed were prefills


class Runner:
    """Constructed in the thread that runs it. Raises ConfigError or EngineFailed when the model cannot be served."""

    def __init__(self, directory: Path, options: EngineOptions, eos_ids: frozenset[int]) -> None:
        self._device = resolve(options.device, options.threads)
        self._architecture = read_architecture(directory)
        dtype = DTYPES.get(options.dtype, self._device.default_dtype)
        layout = _layout(directory, self._architecture, options, dtype)
        number = options.num_blocks or options.kv_cache_mb * MEBIBYTE // layout.block_bytes
        self.info = _info(directory, self._architecture, options, layout, number, eos_ids)
        with torch.inference_mode(), Checkpoint(directory) as checkpoint:
            self._model = Loader(self._architecture, checkpoint, self._device, dtype, options.quantization).model()
            self._cache = Cache(layout, number, dtype, self._device)
        self._geometry = Geometry(self._cache, self._device, dtype)
        self._blocks = Blocks(number)
        self._scheduler = Scheduler(
            self._blocks,
            block_size=options.block_size,
            max_sequences=options.max_num_seqs,
            chunk=options.prefill_chunk,
            prefix_cache=options.enable_prefix_cache,
        )
        self._steps = 0

    @property
    def idle(self) -> bool:
        """Nothing to step."""
        return self._scheduler.idle

    @property
    def load(self) -> EngineLoad:
        """Readable from any thread."""
        return EngineLoad(len(self._scheduler), self._blocks.free, self._steps)

    def add_prefill(self, sequence: Sequence, buffer: memoryview) -> None:
        """Take in a prompt. Raises BadRequest or Overloaded."""
        self._check(sequence)
        if buffer.nbytes != self.info.kv_bytes(len(sequence.tokens)) or buffer.readonly:
            raise BadRequest(f"the KV buffer has {buffer.nbytes} bytes, not {self.info.kv_bytes(len(sequence.tokens))}")
        self._scheduler.add_prefill(self._run(sequence, buffer))

    def insert(self, sequence: Sequence, kv_tokens: int, buffer: memoryview) -> None:
        """Take in a sequence with its KV. Raises BadRequest, Overloaded or KvRefused."""
        self._check(sequence)
        if kv_tokens != len(sequence.tokens) - 1 or kv_tokens < 1:
            raise KvRefused("length", f"KV of {kv_tokens} tokens cannot continue {len(sequence.tokens)} tokens")
        if buffer.nbytes != self.info.kv_bytes(kv_tokens):
            raise KvRefused("length", f"{buffer.nbytes} bytes are not the KV of {kv_tokens} tokens")
        run = self._run(sequence, None)
        self._scheduler.add_decode(run, kv_tokens)
        with torch.inference_mode():
            self._cache.take_in(run.blocks, kv_tokens, memoryview(bytearray(buffer)) if buffer.readonly else buffer)

    def release(self, key: str) -> None:
        """Forget a sequence; unknown keys are fine."""
        self._scheduler.drop(key)

    def step(self) -> Outcome:
        """Run what the scheduler picks and sample."""
        with torch.inference_mode():
            plan = self._scheduler.schedule()
            outcome = Outcome(failed=[(run.key, _preempted()) for run in plan.preempted])
            if plan:
                self._compute(plan, outcome)
        return outcome

    def export(self, key: str) -> None:
        """Gather a completed prompt's KV into its buffer and give its blocks back."""
        run = self._scheduler.run(key)
        if run is not None and run.buffer is not None:
            with torch.inference_mode():
                self._cache.export(run.blocks, run.buffer)
            self._scheduler.drop(key)

    def close(self) -> None:
        """Free the device."""
        del self._model, self._cache, self._geometry
        self._device.clear()

    def _compute(self, plan: Plan, outcome: Outcome) -> None:
        self._cache.clear(plan.fresh)
        batch = lay_out(plan, self._architecture.kinds, self._cache, self._geometry, self._device)
        logits = self._model.forward(batch, self._cache)
        drawn = sample(logits, [self._draw(run) for run in batch.samples], self._device) if batch.samples else []
        self._scheduler.advance(plan)
        self._steps += 1
        for run, what in zip(batch.samples, drawn, strict=True):
            self._settle(run, what, outcome)

    def _settle(self, run: Run, drawn: Drawn, outcome: Outcome) -> None:
        """Append the token and see whether it ends the sequence."""
        if drawn.token_id < 0:
            outcome.failed.append((run.key, EngineFailed("the model's output is not a number")))
            if run.buffer is not None:
                outcome.prompts.add(run.key)
            self._scheduler.drop(run.key)
            return
        run.tokens.append(drawn.token_id)
        if run.history is not None:
            run.history.add(drawn.token_id)
        finish, stop_token = self._ending(run, drawn.token_id)
        sampled = Sampled(run.key, drawn.token_id, finish, stop_token, drawn.alternatives)
        if run.buffer is not None:
            outcome.prefilled.append((run.key, Prefilled(sampled, run.cached)))
            return
        outcome.sampled.append(sampled)
        if finish is not None:
            self._scheduler.drop(run.key)

    def _ending(self, run: Run, token: int) -> tuple[Finish | None, int | None]:
        stopping = run.request.stopping
        if (token in self.info.eos_ids and not stopping.ignore_eos) or token in stopping.stop_token_ids:
            return Finish.STOP, token
        if run.generated >= stopping.max_tokens or len(run.tokens) >= self.info.context:
            return Finish.LENGTH, None
        return None, None

    def _draw(self, run: Run) -> Draw:
        stopping = run.request.stopping
        banned: set[int] = set()
        if run.generated < stopping.min_tokens:
            banned.update(stopping.stop_token_ids)
            if not stopping.ignore_eos:
                banned.update(self.info.eos_ids)
        return Draw(run.request.sampling, len(run.tokens), run.history, tuple(banned))

    def _run(self, sequence: Sequence, buffer: memoryview | None) -> Run:
        history = History(sequence.tokens, sequence.prompt_tokens) if penalises(sequence.sampling) else None
        return Run(sequence.key, list(sequence.tokens), sequence, buffer=buffer, history=history)

    def _check(self, sequence: Sequence) -> None:
        tokens, vocabulary = sequence.tokens, self._architecture.vocabulary
        if not tokens or not 1 <= sequence.prompt_tokens <= len(tokens):
            raise BadRequest(f"{len(tokens)} tokens of which {sequence.prompt_tokens} are the prompt make no sequence")
        if len(tokens) >= self.info.context:
            raise ContextTooLong(f"{len(tokens)} tokens leave no room in a context of {self.info.context}")
        if min(tokens) < 0 or max(tokens) >= vocabulary:
            raise BadRequest(f"token ids must lie below the vocabulary's size, {vocabulary}")
        special = (*sequence.sampling.logit_bias, *sequence.stopping.stop_token_ids)
        if special and not 0 <= min(special) <= max(special) < vocabulary:
            raise BadRequest(f"logit_bias and stop_token_ids must lie below the vocabulary's size, {vocabulary}")


def _preempted() -> BatonError:
    return Overloaded("pushed out of the batch: the engine has no free KV block")


def _layout(directory: Path, architecture: Architecture, options: EngineOptions, dtype: torch.dtype) -> KvLayout:
    return KvLayout(
        model=f"{identity(directory)} {options.quantization}",
        dtype=str(dtype).removeprefix("torch."),
        layers=len(architecture.layers),
        kv_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        block_tokens=options.block_size,
    )


def _info(
    directory: Path,
    architecture: Architecture,
    options: EngineOptions,
    layout: KvLayout,
    blocks: int,
    eos_ids: frozenset[int],
) -> EngineInfo:
    fits = blocks * options.block_size
    context = options.max_model_len or min(architecture.context, fits)
    if fits < 2:  # noqa: PLR2004  one token of prompt, one generated
        raise ConfigError([f"engine_options.kv_cache_mb: {options.kv_cache_mb} MB hold no block; a block has {layout.block_bytes} bytes"])
    if context > min(architecture.context, fits):
        raise ConfigError(
            [f"engine_options.max_model_len: {context} is more than the model's {architecture.context} or the cache's {fits}"]
        )
    return EngineInfo(
        model=directory.name,
        fingerprint=layout.fingerprint,
        context=context,
        block_tokens=options.block_size,
        block_bytes=layout.block_bytes,
        blocks=blocks,
        max_sequences=options.max_num_seqs,
        eos_ids=eos_ids or architecture.eos_ids,
    )
