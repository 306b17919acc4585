"""The torch engine's inner parts put together without an engine, so that tests see logits and decide the tokens."""

from pathlib import Path
from typing import Any

import torch

from shared.engine import EngineInfo, Sequence
from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import DTYPES, resolve
from shared.engine.torch_engine.layouts import layout_for
from shared.engine.torch_engine.model import Loader
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.scheduler import Scheduler
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.sizing import kv_layout
from shared.engine.torch_engine.weights import Checkpoint
from shared.messages import Sampling, Stopping


def sequence(
    key: str, tokens: list[int], prompt_tokens: int = 0, *, max_tokens: int = 16, stopping: Any = None, **sampling: Any
) -> Sequence:
    """A greedy sequence unless told otherwise."""
    chosen = Sampling(**{"temperature": 0.0, **sampling})
    return Sequence(key, tokens, prompt_tokens or len(tokens), chosen, stopping or Stopping(max_tokens=max_tokens))


def buffer_for(info: EngineInfo, tokens: int) -> memoryview:
    """A KV buffer for so many tokens, full of rubbish."""
    return memoryview(bytearray(b"\xff" * info.kv_bytes(tokens)))


class Rig:
    """A model with its cache and scheduler. `feed` runs given tokens and returns the logits after each."""

    def __init__(self, directory: Path, **options: Any) -> None:
        chosen = read_options({"block_size": 4, "num_blocks": 200, **options})
        self.device = resolve(chosen.device)
        self.architecture = read_architecture(directory)
        dtype = DTYPES.get(chosen.dtype, torch.float32)
        with torch.inference_mode(), Checkpoint(directory) as checkpoint:
            loader = Loader(self.architecture, checkpoint, self.device, dtype, quantization=chosen.quantization)
            self.model = loader.model()
            layout = kv_layout(directory, self.architecture, chosen, str(dtype).removeprefix("torch."))
            self.cache = Cache(layout, chosen.num_blocks, dtype, self.device)
        self.layout = layout_for(self.architecture, self.cache, self.device, dtype, sequences=chosen.max_num_seqs)
        self.blocks = Blocks(chosen.num_blocks)
        self.scheduler = Scheduler(
            self.blocks,
            block_size=chosen.block_size,
            max_sequences=chosen.max_num_seqs,
            chunk=chosen.prefill_chunk,
            prefix_cache=chosen.enable_prefix_cache,
        )

    def add(self, key: str, tokens: list[int]) -> Run:
        """A prompt, to be computed by `step`."""
        run = Run(sequence(key, tokens))
        self.scheduler.add_prefill(run)
        return run

    def decode(self, run: Run) -> None:
        """A completed prompt goes on here, as if its KV had been exported and inserted."""
        self.scheduler._decoding[run.key] = run

    def step(self) -> dict[str, torch.Tensor]:
        """The logits that the step decides, by key."""
        with torch.inference_mode():
            plan = self.scheduler.schedule()
            assert not plan.preempted
            self.cache.clear(plan.fresh)
            batch = self.layout.batch(plan)
            logits = self.model.forward(batch)
            self.scheduler.advance(plan)
        return {run.key: row for run, row in zip(batch.samples, logits.clone(), strict=True)}

    def feed(self, key: str, tokens: list[int], prompt: int) -> torch.Tensor:
        """Logits [len(tokens) - prompt + 1, vocabulary]: after the prompt, and after each further token."""
        run = self.add(key, tokens[:prompt])
        seen = []
        while not (logits := self.step()):
            pass
        seen.append(logits[key])
        self.decode(run)
        for token in tokens[prompt:]:
            run.tokens.append(token)
            seen.append(self.step()[key])
        self.scheduler.drop(key)
        return torch.stack(seen)
