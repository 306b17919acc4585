"""Moves on a device: nothing is waited for, scratch is bounded, and the compute stream is joined where it must be."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared.engine.vllm_engine.geometry import share
from shared.engine.vllm_engine.inside.moving import Column, Outcome, Straight, Streamed
from shared.engine.vllm_engine.inside.scheduling import Move
from shared.engine.vllm_engine.inside.tensors import KvTensor, kv_tensors

HEADS, TOKENS, SIZE = 2, 8, 6
BLOCKS = 10
SLAB = TOKENS * SIZE * 2


class Stamp:
    """An event of the make-believe device: it has come once the device was let run so far."""

    def __init__(self, device: "Device", at: int) -> None:
        self._device = device
        self._at = at

    def query(self) -> bool:
        return self._device.done >= self._at


class Device:
    """Stands in for an Accelerator: host memory; `run` lets what was marked so far come to pass."""

    def __init__(self, *, direct: bool) -> None:
        self.direct = direct
        self.device = torch.device("cpu")
        self.marks = 0
        self.done = 0
        self.joined = 0
        self.closed = False
        self.side = self

    def wait_stream(self, other: object) -> None:
        self.joined += 1

    def current(self) -> object:
        return self

    @contextmanager
    def beside(self) -> Iterator[None]:
        yield

    def mark(self) -> Stamp:
        self.marks += 1
        return Stamp(self, self.marks)

    def pinned(self, like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype)

    def used(self, *tensors: Tensor) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def run(self) -> None:
        self.done = self.marks


class Bench:
    """KV tensors, an arena, and a mover between them."""

    def __init__(self, *, direct: bool = True, scratch: int = 1 << 20, layers: int = 3) -> None:
        names = [f"l.{layer}" for layer in range(layers)]
        self.kv = [torch.randint(-9999, 9999, (BLOCKS, HEADS, TOKENS, SIZE), dtype=torch.int16) for _ in names]
        self.tensors: list[KvTensor] = kv_tensors(
            dict(zip(names, self.kv, strict=True)), BLOCKS, TOKENS, dict.fromkeys(names, share(HEADS, 0, 1))
        )
        self.arena = torch.zeros(1 << 16, dtype=torch.uint8)
        self.device = Device(direct=direct)
        self.broken: Callable[[], None] = lambda: None
        device: Any = self.device
        self.mover = Streamed(self.columns, device, scratch)

    def columns(self, move: Move, sends: bool) -> list[Column]:  # noqa: FBT001
        self.broken()
        size = HEADS * move.blocks * SLAB
        starts = [move.offset + place * size for place in range(len(self.tensors))]
        return [
            Column(tensor, tensor.column(self.arena[start : start + size], move.skip))
            for tensor, start in zip(self.tensors, starts, strict=True)
        ]

    def reference(self, move: Move) -> Tensor:
        """The arena as a straight send of the move would leave it."""
        copy = torch.zeros_like(self.arena)
        kept, self.arena = self.arena, copy
        straight = Straight(self.columns)
        straight.start(move, sends=True)
        assert straight.poll() == [Outcome(move, True)]
        self.arena = kept
        return copy

    def drive(self) -> list[Outcome]:
        """Poll and let the device run until nothing is under way, then close the mover."""
        over: list[Outcome] = []
        deadline = time.monotonic() + 20
        while self.mover._jobs:
            assert time.monotonic() < deadline, "the moves never end"
            over += self.mover.poll()
            self.device.run()
            time.sleep(0)  # for the thread that copies
        over += self.mover.poll()
        self.mover.close()
        return over


def move(name: str = "a", ids: tuple[int, ...] = (4, 1, 7), offset: int = 0, skip: int = 0) -> Move:
    return Move(name, f"t{name}", offset, skip + len(ids), skip, ids)


@pytest.mark.parametrize("direct", [True, False])
def test_a_send_is_over_when_the_device_has_written_it_and_not_before(direct: bool) -> None:  # noqa: FBT001
    bench = Bench(direct=direct)
    bench.mover.start(move(), sends=True)
    assert bench.device.joined == 1, "the gather would read what the compute stream has yet to write"
    assert bench.mover.poll() == []
    assert bench.drive() == [Outcome(move(), True)]
    assert torch.equal(bench.arena, bench.reference(move()))


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("skip", [0, 2])
def test_a_load_is_scattered_once_it_is_on_the_device(direct: bool, skip: int) -> None:  # noqa: FBT001
    bench = Bench(direct=direct)
    bench.arena.copy_(torch.randint(0, 255, bench.arena.shape, dtype=torch.uint8))
    wanted = [tensor.clone() for tensor in bench.kv]
    straight = Bench()
    straight.arena = bench.arena
    for own, other in zip(straight.kv, wanted, strict=True):
        own.copy_(other)
    plain = Straight(straight.columns)
    plain.start(move(skip=skip), sends=False)
    bench.mover.start(move(skip=skip), sends=False)
    assert all(torch.equal(own, other) for own, other in zip(bench.kv, wanted, strict=True)), "too early"
    assert bench.drive() == [Outcome(move(skip=skip), False)]
    assert all(torch.equal(own, other) for own, other in zip(bench.kv, straight.kv, strict=True))


def test_scratch_is_bounded_and_a_piece_larger_than_it_goes_alone() -> None:
    piece = HEADS * 3 * SLAB
    bench = Bench(scratch=2 * piece, layers=5)
    bench.mover.start(move("a"), sends=False)
    bench.mover.start(move("b", offset=1 << 14), sends=False)
    most = 0
    over: list[Outcome] = []
    while bench.mover._jobs:
        most = max(most, sum(flight.nbytes for job in bench.mover._jobs for flight in job.flights))
        over += bench.mover.poll()
        bench.device.run()
    assert most == 2 * piece
    assert [one.move.request for one in over + bench.drive()] == ["a", "b"]
    tight = Bench(scratch=piece // 2)
    tight.mover.start(move(), sends=False)
    assert sum(len(job.flights) for job in tight.mover._jobs) == 1
    assert tight.drive() == [Outcome(move(), False)]
    assert tight.mover._room == piece // 2


def test_a_move_that_cannot_begin_fails_alone() -> None:
    bench = Bench()

    def broken() -> None:
        raise ValueError("no such range")

    bench.broken = broken
    bench.mover.start(move("bad"), sends=False)
    bench.broken = lambda: None
    bench.mover.start(move("good"), sends=False)
    bench.mover.start(move("worse", ids=(3, 99)), sends=True)
    over = {one.move.request: one.why for one in bench.drive()}
    assert over.keys() == {"bad", "good", "worse"}
    assert "no such range" in over["bad"]
    assert "99" in over["worse"]
    assert over["good"] == ""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6), st.data())
def test_whatever_breaks_each_move_is_over_once_and_scratch_comes_back(
    moves: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """The n-th piece of work on the device raises, at any n; what was begun is waited for first."""
    bench = Bench(direct=data.draw(st.booleans()), scratch=3 * HEADS * 3 * SLAB)
    room = bench.mover._room
    left = deque([data.draw(st.integers(0, 12)) for _ in range(2)])
    real = bench.device.mark

    def mark() -> Stamp:
        if left and left[0] == 0:
            left.popleft()
            raise RuntimeError("the device says no")
        if left:
            left[0] -= 1
        return real()

    bench.device.mark = mark  # type: ignore[method-assign]
    names: list[str] = []
    over: list[Outcome] = []
    for place, (sends, waits) in enumerate(moves):
        names.append(str(place))
        bench.mover.start(move(str(place), offset=place * 4096), sends=sends)
        for _ in range(waits):
            over += bench.mover.poll()
    over += bench.drive()
    assert sorted(one.move.request for one in over) == names
    assert bench.mover._room == room


def test_closing_waits_for_the_device_and_gives_up_the_rest() -> None:
    bench = Bench(direct=False)
    bench.mover.start(move(), sends=False)
    bench.mover.close()
    assert bench.device.closed
    assert bench.mover.poll() == []
