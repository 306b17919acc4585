"""The connector in a rank: what the scheduler decided is moved, and reported once to vLLM and once to the worker.

Needs torch, not vLLM. Owns the rank's KV tensors, its mapping of the arena, and what it has yet to report; must not
know requests. vLLM counts on one report per move and rank, whatever becomes of it: without it, blocks are never freed;
a second one ends EngineCore.
"""

import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import torch
from torch import Tensor

from shared.engine.vllm_engine.geometry import run
from shared.engine.vllm_engine.inside.accelerator import Accelerator
from shared.engine.vllm_engine.inside.device_rank import DeviceServer
from shared.engine.vllm_engine.inside.moving import Column, Mover, Outcome, Straight, Streamed
from shared.engine.vllm_engine.inside.scheduling import Move, Moves
from shared.engine.vllm_engine.inside.tensors import KvTensor
from shared.engine.vllm_engine.notes import FromVllm, Gathered, Loaded, Lost, Plan, Registered
from shared.errors import ConfigError, EngineFailed

PLAN_S: Final = 300.0
"""For all ranks to register: they load their weights at their own pace."""

log = logging.getLogger(__name__)


@runtime_checkable
class Reachable(Protocol):
    """A device arena whose bytes torch computes with."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def tensor(self, offset: int, nbytes: int) -> Tensor:
        """The bytes [nbytes], uint8, at the offset."""
        ...


class Line(Protocol):
    """To the worker."""

    def send(self, note: FromVllm) -> None:
        """Without waiting; a note that finds no room is lost, with a log line."""
        ...

    def plan(self, seconds: float) -> Plan:
        """Wait for it. Raises EngineFailed when it does not come."""
        ...


@dataclass(slots=True)
class Reports:
    """To vLLM, of one step."""

    sent: set[str]  # request ids
    received: set[str]


class Rank:
    """In vLLM's order: `register` once, then in every step `start`, `finished`, `failed_blocks`."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._rank = -1
        self._tensors: Sequence[KvTensor] = ()
        self._plan: Plan | None = None
        self._arena: Tensor | None = None
        self._server: DeviceServer | None = None
        self._mover: Mover | None = None
        self._unable: list[Outcome] = []  # before or after the time of a mover
        self._under_way: set[tuple[str, bool]] = set()
        self._failed_blocks: set[int] = set()

    def register(self, tensors: Sequence[KvTensor], registered: Registered, seconds: float = PLAN_S) -> None:
        """Make them known and wait for the plan. A repetition must be about the same tensors.

        Raises EngineFailed when no plan comes, ConfigError for one that does not fit: an engine that cannot hand over
        must not start.
        """
        registered = replace_parts(registered, tensors)
        if self._plan is None:
            self._rank = registered.rank
            self._line.send(registered)
            self._plan = self._line.plan(seconds)
            self._arena = map_arena(self._plan)
            self._server = self._serve(self._plan, tensors[0].device, self._arena) if tensors else None
        self._check(tensors, self._plan)
        if self._mover is not None:
            self._mover.close()
        self._tensors = tensors
        self._mover = self._make_mover(tensors[0].device, self._arena) if self._arena is not None else None

    def start(self, moves: Moves) -> None:
        """Begin them; each at most once."""
        for sends, some in ((False, moves.loads), (True, moves.sends)):
            for move in some:
                key = (move.request, sends)
                if key in self._under_way:
                    log.error("vLLM's connector was told twice to move %s", move)
                    continue
                self._under_way.add(key)
                if self._mover is None:
                    self._unable.append(Outcome(move, sends, "this rank has no KV tensors registered"))
                else:
                    self._mover.start(move, sends=sends)

    def finished(self) -> Reports:
        """What is over since the last step. Its blocks with errors come by `failed_blocks` of the same step."""
        reports = Reports(set(), set())
        over, self._unable = self._unable, []
        for move, sends, why in over + (self._mover.poll() if self._mover is not None else []):
            self._under_way.discard((move.request, sends))
            (reports.sent if sends else reports.received).add(move.request)
            if why and not sends:
                self._failed_blocks |= set(move.ids) - {0}  # 0 stands for no block, in any number of requests
            self._line.send(_note(self._rank, move, why, sends=sends))
        return reports

    def failed_blocks(self) -> set[int]:
        """Of loads that failed, reported with `finished`."""
        blocks, self._failed_blocks = self._failed_blocks, set()
        return blocks

    def close(self) -> None:
        """Touch the arena no more. Idempotent."""
        if self._mover is not None:
            self._mover.close()
            self._mover = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def columns(self, move: Move, sends: bool) -> list[Column]:  # noqa: FBT001  a Columns
        """Where a move's bytes lie. Raises ValueError for a range that leaves the arena.

        On devices each rank has a buffer of its own, so there each writes also what others have too.
        """
        plan, arena = self._plan, self._memory(on_device=move.device)
        if plan is None or arena is None:
            raise EngineFailed("no arena is mapped")
        if move.skip + len(move.ids) != move.blocks:
            raise ValueError(f"{len(move.ids)} blocks of {move.blocks} after {move.skip}")
        found = []
        for tensor in self._tensors:
            if sends and not tensor.share.writes and not move.device:
                continue
            start, nbytes = run(tensor.part, plan.before[tensor.part.name], move.offset, move.blocks)
            if start < 0 or start + nbytes > arena.numel():
                raise ValueError(f"bytes {start} to {start + nbytes} of an arena of {arena.numel()}")
            found.append(Column(tensor, tensor.column(arena[start : start + nbytes], move.skip)))
        return found

    def _memory(self, *, on_device: bool) -> Tensor | None:
        if not on_device:
            return self._arena
        device: object = None if self._server is None else self._server.device
        return device.tensor(0, device.size) if isinstance(device, Reachable) else None

    def _serve(self, plan: Plan, where: torch.device, arena: Tensor) -> DeviceServer | None:
        """Where it has a GPU: be ready to keep buffers on it, should the worker want that."""
        if where.type != "cuda" or not plan.devices:
            return None
        from shared.kv.cuda_arena import CudaArena  # noqa: PLC0415  loads the driver's library

        path = Path(f"{plan.devices}-{self._rank}")
        host = memoryview(arena.numpy())  # type: ignore[arg-type]  # its types hide the buffer
        return DeviceServer(path, lambda nbytes: CudaArena(nbytes, where.index or 0), host, self.own)

    def own(self, offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
        """Which parts (start, bytes) of a range this rank writes into the arena in host memory."""
        plan = self._plan
        if plan is None or not plan.block_bytes:
            return
        for tensor in self._tensors:
            if tensor.share.writes:
                yield run(tensor.part, plan.before[tensor.part.name], offset, nbytes // plan.block_bytes)

    def _make_mover(self, device: torch.device, arena: Tensor) -> Mover:
        if device.type == "cpu":
            return Straight(self.columns)
        return Streamed(self.columns, Accelerator(device, arena))

    def _check(self, tensors: Sequence[KvTensor], plan: Plan) -> None:
        if not tensors:
            raise ConfigError(["vLLM registered no KV tensor"])
        for tensor in tensors:
            before = plan.before.get(tensor.part.name)
            if before is None:
                raise ConfigError([f"no place in a buffer is planned for KV tensor {tensor.part.name}"])
            if before % tensor.dtype.itemsize or tensor.slab_bytes % tensor.dtype.itemsize:
                raise ConfigError([f"KV tensor {tensor.part.name} does not begin at a whole number in a buffer"])


def replace_parts(registered: Registered, tensors: Sequence[KvTensor]) -> Registered:
    """With the parts of these tensors, and their shapes in the layout."""
    shapes = sorted({tensor.shape for tensor in tensors})
    layout = "; ".join([registered.layout, *shapes])
    return Registered(
        rank=registered.rank,
        world=registered.world,
        stage=registered.stage,
        blocks=registered.blocks,
        block_tokens=registered.block_tokens,
        parts=[tensor.part for tensor in tensors],
        layout=layout,
    )


def map_arena(plan: Plan) -> Tensor:
    """The worker's staging memory, uint8, for reading and writing. Raises EngineFailed when it cannot be had."""
    try:
        descriptor = os.open(plan.arena, os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(descriptor, plan.arena_bytes)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise EngineFailed(f"the staging memory {plan.arena} cannot be mapped: {error}") from error
    return torch.frombuffer(memory, dtype=torch.uint8)


def _note(rank: int, move: Move, why: str, *, sends: bool) -> FromVllm:
    if why:
        return Lost(rank, move.transfer, why)
    return Gathered(rank, move.transfer) if sends else Loaded(rank, move.transfer)
