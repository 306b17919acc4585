"""KV from one engine's ranks to another's through their device arenas: gathered, fetched, scattered, never on the host.

Without vLLM: its blocks are tensors in its layouts, and the worker's side is what `VllmEngine` uses.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from shared.engine.vllm_engine.device import RankDevices
from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.scheduling import Move, Moves
from shared.engine.vllm_engine.notes import Plan, Registered
from tests.unit.vllm_engine.layouts import BLOCK, LAYOUTS, Wire, model, registered, tensors_of

pytestmark = pytest.mark.gpu

ARENA = 1 << 24
BLOCKS = 9
GIVEN, TAKEN = (7, 1, 3, 4), (2, 8, 5, 6)


class Side:
    """One engine: its ranks, and the device arena that its worker has of them."""

    def __init__(self, folder: Path, name: str, layout: str, ranks: int, seed: int) -> None:
        self.fd = os.memfd_create(name)
        os.ftruncate(self.fd, ARENA)
        self.whole = [one.cuda() for one in model(4, BLOCKS, seed=seed)]
        self.tensors = [tensors_of(LAYOUTS[layout], self.whole, rank, ranks) for rank in range(ranks)]
        notes = [
            Registered(rank, ranks, 0, BLOCKS, BLOCK, [one.part for one in tensors], "")
            for rank, tensors in enumerate(self.tensors)
        ]
        geometry = Geometry(notes)
        self.block_bytes = geometry.block_bytes
        devices = str(folder / name)
        plan = Plan(f"/proc/{os.getpid()}/fd/{self.fd}", ARENA, geometry.before, geometry.block_bytes, devices)
        self.ranks = []
        for rank, tensors in enumerate(self.tensors):
            wire = Wire()
            wire.answer = plan
            made = Rank(wire)
            made.register(tensors, msgspec.structs.replace(registered(rank, ranks, BLOCKS)))
            self.ranks.append(made)
        self.device = RankDevices([Path(f"{devices}-{rank}") for rank in range(ranks)], ARENA)

    def move(self, offset: int, ids: tuple[int, ...], *, sends: bool) -> None:
        """By all ranks, until it is over."""
        move = Move("r", "t", offset, len(ids), 0, ids, device=True)
        for rank in self.ranks:
            rank.start(Moves(sends=[move] if sends else [], loads=[] if sends else [move]))
        for rank in self.ranks:
            deadline = time.monotonic() + 20
            while True:
                reports = rank.finished()
                if reports.sent or reports.received:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert rank.failed_blocks() == set()
        torch.cuda.synchronize()

    def host(self) -> bytes:
        return os.pread(self.fd, ARENA, 0)

    def close(self) -> None:
        self.device.close()
        for rank in self.ranks:
            rank.close()
        os.close(self.fd)


@pytest.fixture(params=[("0.32", 1), ("0.23 CUDA", 1), ("0.32", 2), ("0.32 views of one allocation", 2)], ids=str)
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    layout, ranks = request.param
    made = Side(tmp_path, "p", layout, ranks, 0), Side(tmp_path, "d", layout, ranks, 50)
    yield made
    for side in made:
        side.close()


def blocks_of(side: Side, ids: tuple[int, ...]) -> list[torch.Tensor]:
    """What the ranks' tensors have of these blocks."""
    return [tensor.gather(tensor.rows(ids).cuda()).clone() for tensors in side.tensors for tensor in tensors]


def test_blocks_arrive_and_nothing_stops_on_the_host(sides: tuple[Side, Side]) -> None:
    p, d = sides
    nbytes = len(GIVEN) * p.block_bytes
    untouched = blocks_of(d, (1, 3, 4, 7))
    p.move(4096, GIVEN, sends=True)
    peer = d.device.open(p.device.handle)
    assert peer.fetch(4096, 8192, nbytes, lambda: None) == p.device.checksum(4096, nbytes, lambda: None)
    d.move(8192, TAKEN, sends=False)
    for given, taken in zip(blocks_of(p, GIVEN), blocks_of(d, TAKEN), strict=True):
        assert torch.equal(given, taken)
    for before, after in zip(untouched, blocks_of(d, (1, 3, 4, 7)), strict=True):
        assert torch.equal(before, after)
    assert not any(p.host())
    assert not any(d.host())
    peer.close()


def test_a_buffer_that_must_go_by_the_host_is_whole_there(sides: tuple[Side, Side]) -> None:
    p, d = sides
    nbytes = len(GIVEN) * p.block_bytes
    p.move(4096, GIVEN, sends=True)
    p.device.to_host(4096, memoryview(bytearray(nbytes)), lambda: None)
    os.pwrite(d.fd, p.host()[4096 : 4096 + nbytes], 8192)
    move = Move("r", "t", 8192, len(TAKEN), 0, TAKEN)
    for rank in d.ranks:
        rank.start(Moves(loads=[move]))
        while not rank.finished().received:
            time.sleep(0.001)
    torch.cuda.synchronize()
    for given, taken in zip(blocks_of(p, GIVEN), blocks_of(d, TAKEN), strict=True):
        assert torch.equal(given, taken)
