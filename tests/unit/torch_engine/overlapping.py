"""Runners driven without a thread; with steps that overlap, too, on a processor that computes a step at its launch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from shared.engine import Sampled, Sequence
from shared.engine.torch_engine import runner as runners
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.runner import Outcome, Runner
from shared.errors import BatonError
from shared.text.matching import Grammars, Matcher
from shared.text.tokenizer import ByteTokenizer
from tests.tiny_models import SHAPE
from tests.torch_rig import buffer_for

SIZES: dict[str, Any] = {"block_size": 4, "num_blocks": 60, "max_num_seqs": 8, "prefill_chunk": 8, "max_model_len": 64}
GRAMMARS = Grammars(ByteTokenizer(), SHAPE["vocab_size"])


@contextmanager
def overlapping(device: str = "cpu", *, overlaps: bool = True) -> Iterator[None]:
    """Runners that are made meanwhile have such steps."""
    changed = replace(resolve(device), overlaps=overlaps)
    with patch.object(runners, "resolve", lambda *_: changed):
        yield


@contextmanager
def opened(directory: Path, *, overlaps: bool, **options: Any) -> Iterator[Runner]:
    """A runner that holds nothing at the end."""
    with overlapping(options.get("device", "cpu"), overlaps=overlaps):
        runner = Runner(directory, read_options({**SIZES, **options}), frozenset())
    yield runner
    assert (runner.load.sequences, runner.load.free_blocks) == (0, runner.info.blocks)
    assert runner.idle
    runner.close()


@dataclass
class Driver:
    """Takes each sequence through prefill, export, insertion and decoding, as a worker of both roles does."""

    runner: Runner
    sampled: dict[str, list[Sampled]] = field(default_factory=dict)
    failed: dict[str, BatonError] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _asked: dict[str, tuple[Sequence, memoryview]] = field(default_factory=dict)

    def ask(self, sequence: Sequence, *, grows: bool = False) -> None:
        """Begin with a sequence. Raises what the runner refuses with."""
        buffer = buffer_for(self.runner.info, len(sequence.tokens))
        self.runner.add_prefill(sequence, buffer, _matcher(sequence), grows=grows)
        self._asked[sequence.key] = (sequence, buffer)
        self.sampled[sequence.key] = []

    def release(self, key: str) -> None:
        """Forget a sequence."""
        self.runner.release(key)

    def turn(self) -> None:
        """One step, and what follows it."""
        outcome = self.runner.step()
        self.outcomes.append(outcome)
        for key in outcome.grown:
            self.runner.export_more(key)
        for key, prefilled in outcome.prefilled:
            self.sampled[key].append(prefilled.first)
            self.runner.export(key)
            if prefilled.first.finish is None:
                self._insert(key, prefilled.first.token_id)
        self.failed.update(outcome.unfilled)
        for one in outcome.step.sampled:
            self.sampled[one.key].append(one)
        self.failed.update(outcome.step.failed)

    def run(self) -> None:
        """Until nothing is left to do."""
        while not self.runner.idle:
            self.turn()

    def _insert(self, key: str, token: int) -> None:
        sequence, buffer = self._asked[key]
        longer = replace(sequence, tokens=[*sequence.tokens, token])
        self.runner.insert(longer, len(sequence.tokens), buffer, _matcher(longer))


def _matcher(sequence: Sequence) -> Matcher | None:
    constraint = sequence.sampling.constraint
    generated = sequence.tokens[sequence.prompt_tokens :]
    return None if constraint is None else GRAMMARS.matcher(constraint, generated)
