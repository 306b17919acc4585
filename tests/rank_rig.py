"""The ranks of one model, each in a thread of one process: as `Rig`, with every step computed by all of them.

What a follower hears is what it would hear in a process of its own: the plan goes through its note.
"""

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.blocks import Blocks
from shared.engine.torch_engine.device import DTYPES, resolve
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.ranks.collective import LOOPBACK, Group
from shared.engine.torch_engine.ranks.notes import Forward, for_follower, pack
from shared.engine.torch_engine.ranks.plans import Hearing, Telling
from shared.engine.torch_engine.ranks.shards import shard
from shared.engine.torch_engine.scheduler import Scheduler
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.sizing import kv_layout
from tests.torch_rig import sequence


class RankRig:
    """`world` executors with one scheduler."""

    def __init__(self, directory: Path, world: int, **options: Any) -> None:
        chosen = read_options({"block_size": 4, "num_blocks": 200, **options})
        self._threads = ThreadPoolExecutor(world)
        device, architecture = resolve(chosen.device, 1), read_architecture(directory)
        dtype = DTYPES.get(chosen.dtype, torch.float32)
        self.layout = kv_layout(directory, architecture, chosen, str(dtype).removeprefix("torch."))
        self.shards = [shard(architecture, rank, world) for rank in range(world)]
        self._groups = [Group(rank, world, device, 20.0) for rank in range(world)]
        self.executors = [
            Executor(
                directory,
                architecture,
                device,
                dtype,
                quantization=chosen.quantization,
                layout=self.layout,
                blocks=chosen.num_blocks,
                sequences=chosen.max_num_seqs,
                shard=part,
                group=group,
            )
            for part, group in zip(self.shards, self._groups, strict=True)
        ]
        listening = socket.create_server((LOOPBACK, 0))
        port = listening.getsockname()[1]
        self._all([self._threads.submit(group.join, port, *[listening][group.rank :]) for group in self._groups])
        self._telling = Telling()
        self._hearings = [Hearing() for _ in range(world - 1)]
        self._beside: list[Run] = []
        blocks = Blocks(chosen.num_blocks)
        self.scheduler = Scheduler(
            blocks, block_size=chosen.block_size, max_sequences=64, chunk=chosen.prefill_chunk, prefix_cache=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._groups:
            group.close()
        self._threads.shutdown()

    def step(self) -> dict[str, torch.Tensor]:
        """The logits that the step decides, by key: the first rank's, with which the others' must agree."""
        plan = self.scheduler.schedule()
        told = pack(self._telling.note(plan))
        plans = [plan, *(hearing.plan(_forward(told)) for hearing in self._hearings)]
        scores = self._all(
            [self._threads.submit(one.forward, its) for one, its in zip(self.executors, plans, strict=True)]
        )
        for other in scores[1:]:
            assert torch.equal(other.logits, scores[0].logits)
        self.scheduler.advance(plan)
        for run in self._beside:
            run.tokens.append(run.tokens[-1])
        samples = scores[0].samples
        return {run.key: row for run, row in zip(samples, scores[0].logits.clone(), strict=True)}

    def company(self, key: str, tokens: list[int]) -> None:
        """A sequence that decodes beside the fed one, whatever; its cache is empty, and its text is of one token."""
        run = Run(sequence(key, tokens))
        self.scheduler.add_decode(run, len(tokens) - 1)
        self._beside.append(run)

    def feed(self, key: str, tokens: list[int], prompt: int) -> torch.Tensor:
        """Logits [len(tokens) - prompt + 1, vocabulary]: after the prompt, and after each further token."""
        run = Run(sequence(key, tokens[:prompt]))
        self.scheduler.add_prefill(run)
        seen = []
        while key not in (logits := self.step()):
            pass
        seen.append(logits[key])
        self.scheduler._decoding[run.key] = run
        for token in tokens[prompt:]:
            run.tokens.append(token)
            seen.append(self.step()[key])
        self.scheduler.drop(key)
        return torch.stack(seen)

    def _all(self, futures: list[Future[Any]]) -> list[Any]:
        return [future.result(60) for future in futures]


def _forward(data: bytes) -> Forward:
    note = for_follower(data)
    assert isinstance(note, Forward)
    return note
