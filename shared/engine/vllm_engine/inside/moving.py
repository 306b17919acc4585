"""The bytes of moves, between a rank's KV tensors and the arena: at once on a CPU, beside the compute on a device.

Owns streams, events and scratch memory; must not know vLLM. A step never waits for a copy: on a device what was started
is looked at again in each step. Of a send only its gather has to see finished compute. A load's last copy, into vLLM's
blocks, goes on the compute stream, since the order of that stream is all that protects a block which a step in flight
still uses.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor

from shared.engine.vllm_engine.inside.accelerator import Accelerator
from shared.engine.vllm_engine.inside.scheduling import Move
from shared.engine.vllm_engine.inside.tensors import KvTensor

SCRATCH_BYTES: Final = 512 << 20
"""On the device, and in pinned memory, for pieces on their way; vLLM leaves more than that unused."""


class Outcome(NamedTuple):
    """A move is over: the rank touches neither its range nor its blocks any more."""

    move: Move
    sends: bool
    why: str = ""  # it failed


class Column(NamedTuple):
    """What one tensor has of one move: its memory in the arena, [heads, elements], without what is skipped."""

    tensor: KvTensor
    memory: Tensor


Columns = Callable[[Move, bool], list[Column]]
"""Those of a move; for a send only of what this rank writes. Raises for ranges outside the arena."""


class Mover(Protocol):
    """Does moves."""

    def start(self, move: Move, *, sends: bool) -> None:
        """Begin, or fail: its Outcome comes in either case."""
        ...

    def poll(self) -> list[Outcome]:
        """Those that are over since the last time. Does what can be done now and does not wait."""
        ...

    def close(self) -> None:
        """Nothing touches the arena any more. Idempotent."""
        ...


class Straight:
    """On a CPU: copies before it returns."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._over: list[Outcome] = []

    def start(self, move: Move, *, sends: bool) -> None:
        """Do it."""
        try:
            for tensor, memory in self._columns(move, sends):
                rows = tensor.rows(move.ids)
                if sends:
                    memory.copy_(tensor.gather(rows))
                else:
                    tensor.scatter(rows, memory)
        except Exception as error:  # noqa: BLE001  whatever it is, vLLM must not see it
            self._over.append(Outcome(move, sends, repr(error)))
        else:
            self._over.append(Outcome(move, sends))

    def poll(self) -> list[Outcome]:
        """Those done."""
        over, self._over = self._over, []
        return over

    def close(self) -> None:
        """Nothing is under way."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One column on its way. `steps` are begun one after the other, each once the one before is over."""

    nbytes: int
    steps: deque[Callable[[], Any]]
    until: Any = None  # an event, or a future; None where the last step needs no waiting

    def advance(self) -> bool:
        """Whether it has arrived."""
        while self.until is None or _over(self.until):
            if not self.steps:
                return True
            self.until = self.steps.popleft()()
        return False


@dataclass(slots=True, eq=False)
class _Job:
    move: Move
    sends: bool
    todo: deque[Column]
    rows: dict[int, Tensor]  # kernel block ids on the device, by their number in a block
    flights: list[_Flight] = field(default_factory=list)
    why: str = ""


class Streamed:
    """On a device: a side stream, in the order of the moves, and as many columns at a time as scratch allows."""

    def __init__(self, columns: Columns, accelerator: Accelerator, scratch_bytes: int = SCRATCH_BYTES) -> None:
        self._columns = columns
        self._at = accelerator
        self._room = scratch_bytes
        self._jobs: deque[_Job] = deque()
        self._over: list[Outcome] = []
        self._copies = ThreadPoolExecutor(1, thread_name_prefix="kv copy")  # between the arena and pinned memory

    def start(self, move: Move, *, sends: bool) -> None:
        """Begin what scratch has room for."""
        try:
            columns = self._columns(move, sends)
            job = _Job(move, sends, deque(columns), self._rows(move, columns))
        except Exception as error:  # noqa: BLE001
            self._over.append(Outcome(move, sends, repr(error)))
            return
        if sends:
            self._at.side.wait_stream(self._at.current())
        self._jobs.append(job)
        self._advance(job)

    def poll(self) -> list[Outcome]:
        """Go on with all that is under way."""
        for job in self._jobs:
            self._advance(job)
        going = deque(job for job in self._jobs if job.todo or job.flights)
        self._over += [Outcome(job.move, job.sends, job.why) for job in self._jobs if not (job.todo or job.flights)]
        self._jobs = going
        over, self._over = self._over, []
        return over

    def close(self) -> None:
        """Wait for what is under way, and give up the rest."""
        self._jobs.clear()
        self._copies.shutdown(wait=True, cancel_futures=True)
        self._at.close()

    def _advance(self, job: _Job) -> None:
        try:
            for flight in list(job.flights):
                if flight.advance():
                    job.flights.remove(flight)
                    self._room += flight.nbytes
            while job.todo and (self._room >= _nbytes(job.todo[0]) or not self._busy()):
                column = job.todo.popleft()
                flight = self._launch(job, column)
                self._room -= flight.nbytes
                job.flights.append(flight)
                flight.advance()
        except Exception as error:  # noqa: BLE001  of this move alone
            self._fail(job, repr(error))

    def _fail(self, job: _Job, why: str) -> None:
        """Nothing more is begun; what flies is waited for, unless the device is past answering."""
        job.why = job.why or why
        job.todo.clear()
        for flight in job.flights:
            flight.steps.clear()
        job.flights = [flight for flight in job.flights if not self._landed(flight)]

    def _landed(self, flight: _Flight) -> bool:
        try:
            landed = flight.until is None or _over(flight.until)
        except Exception:  # noqa: BLE001  a copy that failed, or a device that is lost: nothing flies
            landed = True
        if landed:
            self._room += flight.nbytes
        return landed

    def _busy(self) -> bool:
        return any(job.flights for job in self._jobs)

    def _launch(self, job: _Job, column: Column) -> _Flight:
        tensor, memory = column
        rows = job.rows[tensor.ratio]
        if job.sends:
            return self._send(tensor, memory, rows)
        return self._load(tensor, memory, rows)

    def _send(self, tensor: KvTensor, memory: Tensor, rows: Tensor) -> _Flight:
        target = memory if self._reached(memory) else self._at.pinned(memory)

        def gather() -> Any:  # noqa: ANN401
            with self._at.beside():
                _copy(target, tensor.gather(rows))
                return self._at.mark()

        steps: deque[Callable[[], Any]] = deque([gather])
        if target is memory:
            return _Flight(0, steps)
        steps.append(lambda: self._copies.submit(memory.copy_, target))
        return _Flight(_nbytes(Column(tensor, memory)), steps)

    def _load(self, tensor: KvTensor, memory: Tensor, rows: Tensor) -> _Flight:
        source = memory if self._reached(memory) else self._at.pinned(memory)
        scratch: list[Tensor] = []

        def up() -> Any:  # noqa: ANN401
            with self._at.beside():
                piece = torch.empty(memory.shape, dtype=memory.dtype, device=self._at.device)
                _copy(piece, source)
                scratch.append(piece)
                return self._at.mark()

        def scatter() -> None:
            piece = scratch.pop()
            tensor.scatter(rows, piece)
            self._at.used(piece, rows)

        steps: deque[Callable[[], Any]] = deque([up, scatter])
        if source is not memory:
            steps.appendleft(lambda: self._copies.submit(source.copy_, memory))
        return _Flight(_nbytes(Column(tensor, memory)), steps)

    def _reached(self, memory: Tensor) -> bool:
        """Whether the device reads and writes it itself."""
        return self._at.direct or memory.device.type != "cpu"

    def _rows(self, move: Move, columns: Iterable[Column]) -> dict[int, Tensor]:
        """Kernel block ids on the device, once per ratio. From pinned memory: a pageable copy would wait."""
        found: dict[int, Tensor] = {}
        for tensor, _ in columns:
            if tensor.ratio not in found:
                rows = tensor.rows(move.ids)
                pinned = self._at.pinned(rows)
                pinned.copy_(rows)
                with self._at.beside():
                    found[tensor.ratio] = pinned.to(self._at.device, non_blocking=True)
        return found


def _copy(target: Tensor, source: Tensor) -> None:
    """Between host and device, without waiting; a head at a time where heads do not lie end to end."""
    if target.is_contiguous() and source.is_contiguous():
        target.copy_(source, non_blocking=True)
        return
    for one, other in zip(target, source, strict=True):
        one.copy_(other, non_blocking=True)


def _nbytes(column: Column) -> int:
    return column.memory.numel() * column.memory.element_size()


def _over(until: Any) -> bool:  # noqa: ANN401
    """Whether an event came, or a future is done. Raises what the future raised."""
    if isinstance(until, Future):
        if not until.done():
            return False
        until.result()
        return True
    return bool(until.query())
