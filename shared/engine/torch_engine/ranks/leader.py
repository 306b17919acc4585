"""Rank 0: an executor that has the others do what it does.

Owns the crew. Lives in the thread that owns torch, and offers what the executor of one device offers; before each call
of its own it tells the followers which, and every call ends before the next one begins, but for what a device still
computes. Buffers lie in the arena, which all ranks map.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.options import EngineOptions
from shared.engine.torch_engine.ranks.collective import JOIN_S, LOOPBACK, Group
from shared.engine.torch_engine.ranks.crew import Crew
from shared.engine.torch_engine.ranks.moves import Moves
from shared.engine.torch_engine.ranks.notes import Begin, Export, Forward, Join, TakeIn
from shared.engine.torch_engine.ranks.plans import Telling
from shared.engine.torch_engine.ranks.shards import device_names, shard
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.view import Scores
from shared.errors import BatonError, EngineFailed
from shared.kv.arena import Arena
from shared.kv.layout import KvLayout

LOAD_S: Final = 1800.0
"""For a follower to read its part of the weights, maybe from a slow disk; one that dies is noticed at once."""


class RankedExecutor:
    """See Computes. `failed` is told, in another thread, when the engine is dead, whatever this one waits for then."""

    def __init__(
        self,
        directory: Path,
        architecture: Architecture,
        device: Device,
        dtype: torch.dtype,
        *,
        quantization: str,
        layout: KvLayout,
        blocks: int,
        sequences: int,
        options: EngineOptions,
        arena: Arena,
        failed: Callable[[EngineFailed], object],
    ) -> None:
        world = options.tensor_parallel
        shards = [shard(architecture, rank, world) for rank in range(world)]
        if arena.fd is None:
            raise EngineFailed("engine_options.tensor_parallel needs memory that processes can share", fatal=True)
        self._arena = arena
        self._device = device
        self._failed = failed
        self._telling = Telling()
        self._patience_s = float(options.rank_timeout_s)
        self._group = Group(0, world, device, self._patience_s)
        make = partial(Executor, directory, architecture, device, dtype, layout=layout, blocks=blocks)
        self._crew = Crew(world - 1, self._fail, self._patience_s, inherits=(arena.fd,))
        try:
            self._crew.tell(_begins(directory, options, arena, layout.dtype, blocks))
            self._own = make(quantization=quantization, sequences=sequences, shard=shards[0], group=self._group)
            self._moves = Moves(layout, shards[0], dtype, self._own)
            self._crew.done(LOAD_S)
            self._join()
        except BaseException:
            self._crew.close()
            self._group.close()
            raise

    @property
    def overlaps(self) -> bool:
        """Not yet: the tokens of a step would have to go to the other ranks' devices as well."""
        return False

    def capture(self, sequences: int) -> None:
        """Not yet: the graphs of all ranks would have to be captured together, with their collectives."""

    def forward(self, plan: Plan) -> Scores:
        """See Computes. The logits are complete on this rank."""
        with self._together(self._telling.note(plan), waits=False):
            return self._own.forward(plan)

    def keep(self, scores: Scores, tokens: Tensor) -> None:  # noqa: ARG002
        """Never called: it does not overlap."""
        raise AssertionError("the steps of several ranks do not overlap")

    def stage(self, arena: Arena, nbytes: int) -> None:
        """Nothing: buffers lie in host memory, where each rank finds its heads of them."""

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview) -> None:
        """See Computes; the buffer is free when all ranks have what is theirs."""
        with self._together(TakeIn([*blocks], tokens, self._arena.offset_of(buffer), len(buffer))):
            self._moves.take_in(blocks, tokens, buffer)

    def export(self, blocks: Sequence[int], buffer: memoryview, *, in_host: bool) -> None:  # noqa: ARG002
        """See Computes; the buffer is complete when this returns, and always in host memory."""
        with self._together(Export([*blocks], self._arena.offset_of(buffer), len(buffer))):
            self._moves.export(blocks, buffer)

    def close(self) -> None:
        """Free the devices."""
        self._crew.close()
        self._group.close()
        self._own.close()

    @contextmanager
    def _together(self, note: Forward | TakeIn | Export, *, waits: bool = True) -> Iterator[None]:
        """Around a call of this rank's own: the others do the same. Raises EngineFailed, with the crew's reason."""
        self._crew.begin()
        over = None
        try:
            self._crew.tell(note)
            yield
            if waits:
                self._crew.done(self._patience_s)
            else:
                over = self._device.mark()
        except BatonError as error:
            raise self._crew.reason(error) from error
        except RuntimeError as error:  # of a collective whose other end is gone
            raise self._crew.reason(error) from error
        finally:
            self._crew.end(over)

    def _join(self) -> None:
        with socket.create_server((LOOPBACK, 0)) as listening:
            self._crew.tell(Join(listening.getsockname()[1]))
            self._group.join(listening.getsockname()[1], listening)
        self._crew.done(JOIN_S)

    def _fail(self, error: EngineFailed) -> None:
        """The crew's thread has found out. First of all it is told: what comes later is of no worth."""
        self._failed(error)
        self._group.abort()


def _begins(directory: Path, options: EngineOptions, arena: Arena, dtype: str, blocks: int) -> list[Begin]:
    """What each follower is told at first."""
    world = options.tensor_parallel
    return [
        Begin(
            rank,
            world,
            str(directory.absolute()),
            asdict(replace(options, device=name)),
            dtype,
            blocks,
            arena.fd if arena.fd is not None else -1,
            arena.size,
        )
        for rank, name in enumerate(device_names(options.device, world))
        if rank
    ]
