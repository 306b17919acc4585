"""The connector under a model of vLLM's scheduler, with the asserts of the real one, in random histories.

The model keeps what vLLM 0.23 and 0.32 do around a connector: blocks and their prefix cache, asynchronous loads,
delayed frees, preemption, aborts at any moment, several ranks of which each may be late or fail. It fails on every
report that would end EngineCore, on blocks that are never freed, and on notes by which the worker would leak a range.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.inside.moving import Outcome, Straight
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.scheduling import COMPLETE, Moves, Scheduling
from shared.engine.vllm_engine.notes import Ended, Gathered, Loaded, Lost, Plan, Registered, Skipped, Transfer
from tests.unit.vllm_engine.layouts import BLOCK, LAYOUTS, Wire, model, registered, tensors_of

BLOCKS = 14
RANKS = 2
ARENA = 1 << 20


@pytest.fixture
def arena() -> Iterator[str]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, ARENA)
    yield f"/proc/{os.getpid()}/fd/{fd}"
    os.close(fd)


@dataclass
class Request:
    """A request as the scheduler holds it; the three first fields are all that the connector reads."""

    request_id: str
    num_prompt_tokens: int
    kv_transfer_params: dict[str, Any]
    left: int  # tokens to generate
    status: str = "WAITING"
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    preemptions: int = 0
    loads: int = 0


class LateMover(Straight):
    """Moves are over some steps after they were begun, in any order."""

    def __init__(self, columns: Any, draw: random.Random) -> None:
        super().__init__(columns)
        self._draw = draw
        self._waiting: list[Outcome] = []

    def poll(self) -> list[Outcome]:
        self._waiting += super().poll()
        over = [one for one in self._waiting if self._draw.random() < 0.5]
        self._waiting = [one for one in self._waiting if one not in over]
        return over


class Loop:
    """EngineCore: `step` is one of its steps."""

    def __init__(self, seed: int, arena: str) -> None:
        self.draw = random.Random(seed)  # noqa: S311
        self.told: list[object] = []
        self.scheduling = Scheduling(BLOCK, self.told.append)
        self.wires = [Wire() for _ in range(RANKS)]
        self.ranks = self._ranks(arena)
        self.requests: dict[str, Request] = {}
        self.free = list(range(1, BLOCKS))
        self.received: set[str] = set()
        self.reports: Counter[tuple[str, bool]] = Counter()
        self.started: Counter[tuple[str, bool]] = Counter()
        self.all: dict[str, Request] = {}
        self.ends: dict[str, str] = {}

    def _ranks(self, arena: str) -> list[Rank]:
        kv = model(4, BLOCKS)
        made = []
        tensors = [tensors_of(LAYOUTS["0.32"], kv, rank, RANKS) for rank in range(RANKS)]
        ends = [
            Registered(rank, RANKS, 0, BLOCKS, BLOCK, [one.part for one in tensors[rank]], "") for rank in range(RANKS)
        ]
        for rank in range(RANKS):
            self.wires[rank].answer = Plan(arena, ARENA, Geometry(ends).before)
            made.append(Rank(self.wires[rank]))
            made[rank].register(tensors[rank], registered(rank, RANKS, BLOCKS))
            made[rank]._mover = LateMover(made[rank].columns, self.draw)
        return made

    def add(self, request: Request) -> None:
        self.requests[request.request_id] = self.all[request.request_id] = request

    def step(self) -> None:
        """Schedule, run the ranks, take their reports: with the real scheduler's asserts."""
        for request in list(self.requests.values()):
            self._schedule(request)
        moves = self.scheduling.take()
        for sends, some in ((False, moves.loads), (True, moves.sends)):
            for move in some:
                self.started[move.request, sends] += 1
        invalid: set[int] = set()
        for rank in self.ranks:
            rank.start(Moves(list(moves.loads), list(moves.sends)))
            reports = rank.finished()
            for sends, ids in ((False, reports.received), (True, reports.sent)):
                for name in sorted(ids):
                    self.reports[name, sends] += 1
            invalid |= rank.failed_blocks()
            over = [key for key, count in self.reports.items() if count == RANKS]
            self._invalid(invalid)
            for name, sends in over:
                self.reports[name, sends] = RANKS + 1  # passed on
                self._passed_on(name, sends=sends)
        self._run()

    def _schedule(self, request: Request) -> None:
        if request.status == "WAITING_FOR_REMOTE_KVS" and request.request_id in self.received:
            self.received.remove(request.request_id)
            request.status = "WAITING"
        if request.status not in ("WAITING", "PREEMPTED"):
            return
        external, load = 0, False
        if request.computed == 0:
            cached = self.draw.choice([0, 0, BLOCK, request.num_prompt_tokens // BLOCK * BLOCK])
            cached = min(cached, (request.num_prompt_tokens - 1) // BLOCK * BLOCK)
            external, load = self.scheduling.matched(request, cached)
            assert (external, load) != (0, True)
            if external and self.draw.random() < 0.15:
                external, load = 0, False  # 0.32: dropped for a hit of its own
            assert cached + external <= request.num_prompt_tokens
            request.computed = cached + external
        need = -(-(request.num_prompt_tokens + request.left) // BLOCK) - len(request.blocks)
        if need > len(self.free):
            request.computed = request.computed if request.blocks else 0
            return
        request.blocks += [self.free.pop(self.draw.randrange(len(self.free))) for _ in range(need)]
        self.scheduling.allocated(request, list(request.blocks), external)
        request.loads += load
        request.status = "WAITING_FOR_REMOTE_KVS" if load else "RUNNING"

    def _invalid(self, blocks: set[int]) -> None:
        for request in list(self.requests.values()):
            if request.status == "WAITING_FOR_REMOTE_KVS" and blocks & set(request.blocks):
                self.finish(request, "FINISHED_ERROR")

    def _passed_on(self, name: str, *, sends: bool) -> None:
        assert name in self.requests, "EngineCore would die: reported twice, or after it was freed"
        request = self.requests[name]
        if not sends and request.status == "WAITING_FOR_REMOTE_KVS":
            self.received.add(name)
            return
        assert request.status.startswith("FINISHED"), "EngineCore would die: its blocks are in use"
        self._free(request)

    def _run(self) -> None:
        for request in [one for one in self.requests.values() if one.status == "RUNNING"]:
            request.left -= 1
            if request.left <= 0:
                self.finish(request, COMPLETE)

    def finish(self, request: Request, status: str) -> None:
        """As the real one: blocks of a load in flight, and of a send, are kept for a report."""
        if request.request_id not in self.requests or request.status.startswith("FINISHED"):
            return
        delayed = False
        if request.status == "WAITING_FOR_REMOTE_KVS":
            delayed = request.request_id not in self.received
            self.received.discard(request.request_id)
        request.status = status
        self.ends[request.request_id] = status
        delayed = self.scheduling.finished(request, status, list(request.blocks)) or delayed
        if not delayed:
            self._free(request)

    def _free(self, request: Request) -> None:
        self.free += request.blocks
        request.blocks = []
        del self.requests[request.request_id]

    def preempt(self, request: Request) -> None:
        if request.status == "RUNNING":
            self.free += request.blocks
            request.blocks, request.computed, request.status = [], 0, "PREEMPTED"
            request.preemptions += 1


def newcomer(loop: Loop, number: int) -> Request:
    draw = loop.draw
    tokens = draw.randrange(1, 4 * BLOCK)
    blocks = -(-tokens // BLOCK)
    offset = number % 20 * 16384 if draw.random() < 0.8 else ARENA  # a range that is not there
    transfer = Transfer(f"t{number}", offset, tokens, blocks)
    sends = draw.random() < 0.5
    length = tokens if sends else tokens + 1
    return Request(f"r{number}", length, transfer.params(sends=sends), 1 if sends else draw.randrange(1, 12))


@pytest.mark.parametrize("seed", range(60))
def test_no_history_ends_the_core_or_leaks_a_block(seed: int, arena: str) -> None:
    loop = Loop(seed, arena)
    for number in range(40):
        loop.add(newcomer(loop, number))
        for _ in range(loop.draw.randrange(3)):
            loop.step()
        for request in list(loop.requests.values()):
            if loop.draw.random() < 0.05:
                loop.preempt(request)
            if loop.draw.random() < 0.08:
                loop.finish(request, "FINISHED_ABORTED")
    for _ in range(400):
        loop.step()
        if not loop.requests:
            break
    assert loop.requests == {}, "a request is never done"
    assert sorted(loop.free) == list(range(1, BLOCKS))
    assert loop.scheduling.requests == 0
    check_notes(loop)


def check_notes(loop: Loop) -> None:
    """The worker can free every range: it hears one end of each transfer, and of each rank what that end promises."""
    ended = {note.transfer: note.moves for note in loop.told if isinstance(note, Ended)}
    assert sum(isinstance(note, Ended) for note in loop.told) == len(ended) == len(loop.all)
    skipped = [note.transfer for note in loop.told if isinstance(note, Skipped)]
    assert len(skipped) == len(set(skipped))
    assert not {name for name in skipped if ended[name]}
    for number, wire in enumerate(loop.wires):
        moved = Counter(note.transfer for note in wire.notes if isinstance(note, Gathered | Loaded | Lost))
        assert set(moved) == {name for name, moves in ended.items() if moves}
        assert set(moved.values()) <= {1}
        assert all(note.rank == number for note in wire.notes if isinstance(note, Gathered | Loaded | Lost))
    assert set(loop.started.values()) <= {1}


def test_the_histories_contain_what_they_are_meant_to(arena: str) -> None:
    """Loads, sends, losses, skips, preemption after a load, aborts in flight: all of them, often."""
    seen: Counter[str] = Counter()
    for seed in range(25):
        loop = Loop(seed, arena)
        for number in range(40):
            loop.add(newcomer(loop, number))
            for _ in range(loop.draw.randrange(3)):
                loop.step()
            for request in list(loop.requests.values()):
                if loop.draw.random() < 0.05:
                    loop.preempt(request)
                    seen["preempted after its load"] += request.status == "PREEMPTED" and request.loads
                if loop.draw.random() < 0.08:
                    seen["aborted in flight"] += request.status == "WAITING_FOR_REMOTE_KVS"
                    loop.finish(request, "FINISHED_ABORTED")
        seen.update(type(note).__name__ for note in loop.told)
        seen.update(type(note).__name__ for note in loop.wires[0].notes)
        seen.update(loop.ends.values())
    kinds = ["Gathered", "Loaded", "Lost", "Skipped", "Ended", "FINISHED_ERROR", "FINISHED_ABORTED", COMPLETE]
    assert all(seen[kind] >= 20 for kind in [*kinds, "preempted after its load", "aborted in flight"]), seen
