"""The torch engine over several ranks, for a worker: what the engine of one device is not.

Owns no more than the arena it was given. Must not know what its ranks do.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from shared.engine.torch_engine.cpu.cores import cores
from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.health import devices_of, probe, probe_beside
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.ranks.leader import RankedExecutor
from shared.engine.torch_engine.ranks.shards import device_names
from shared.engine.torch_engine.runner import Runner
from shared.engine.torch_engine.worker import Report
from shared.errors import EngineFailed
from shared.kv.arena import Arena
from shared.messages import Health
from shared.text.tokenizer import Tokenizer


class RankedEngine(TorchEngine):
    """See TorchEngine; its buffers are ranges of the arena that it was given before `start`."""

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, Any],
        eos_ids: frozenset[int] = frozenset(),
        tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        super().__init__(directory, options, eos_ids, tokenizer)
        self._options = _sharing_cores(self._options)
        self._arena: Arena | None = None

    def stage(self, arena: Arena) -> None:
        """See shared.engine.Staged."""
        self._arena = arena

    @property
    def devices(self) -> frozenset[str]:
        """See shared.engine.Probed."""
        return frozenset().union(*(devices_of(name) for name in self._names))

    def probe(self) -> tuple[Health, str]:
        """See shared.engine.Probed: as well as the worst of its devices."""
        first, *others = self._names
        return max([probe(first), *map(probe_beside, others)], key=lambda found: list(Health).index(found[0]))

    @property
    def _names(self) -> list[str]:
        return device_names(self._options.device, self._options.tensor_parallel)

    def _build(self) -> Runner:
        if self._arena is None:
            raise EngineFailed("an engine of several ranks needs the arena that its buffers lie in", fatal=True)
        executor = partial(RankedExecutor, options=self._options, arena=self._arena, failed=self._fail)
        return Runner(self._directory, self._options, self._eos_ids, executor)

    def _fail(self, error: EngineFailed) -> None:
        """Called in a thread, while the engine's own may wait for a device for ever."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._post(Report(ended=error))


def _sharing_cores(options: EngineOptions) -> EngineOptions:
    """Ranks on the processor share its cores, unless it is said how many threads each has."""
    if options.threads or options.device.partition(":")[0] != "cpu":
        return options
    held = cores(options.cpus) or os.sched_getaffinity(0)
    return replace(options, threads=max(1, len(held) // options.tensor_parallel))
