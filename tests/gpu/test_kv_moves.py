"""KV between vLLM's blocks on a device and the arena: the bytes of the CPU's way, without waiting for the device."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.inside.accelerator import Accelerator
from shared.engine.vllm_engine.inside.moving import Streamed
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.scheduling import Move, Moves
from shared.engine.vllm_engine.inside.tensors import KvTensor, kv_tensors
from shared.engine.vllm_engine.notes import Plan, Registered
from tests.unit.vllm_engine.layouts import BLOCK, LAYOUTS, Wire, model, registered, tensors_of

pytestmark = pytest.mark.gpu

ARENA = 1 << 28
SLEEP_CYCLES = 400_000_000  # a fifth of a second or more


@pytest.fixture
def arena() -> Iterator[str]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, ARENA)
    yield f"/proc/{os.getpid()}/fd/{fd}"
    os.close(fd)


def rank_of(tensors: list[KvTensor], blocks: int, arena: str, *, direct: bool = True) -> Rank:
    wire = Wire()
    parts = [tensor.part for tensor in tensors]
    wire.answer = Plan(arena, ARENA, Geometry([Registered(0, 1, 0, blocks, BLOCK, parts, "")]).before)
    rank = Rank(wire)
    rank.register(tensors, registered(0, 1, blocks))
    if tensors[0].device.type == "cuda":
        assert isinstance(rank._mover, Streamed)
        assert rank._mover._at.direct, "the device cannot reach the arena itself"
    if not direct:
        assert isinstance(rank._mover, Streamed)
        rank._mover._at.close()
        assert rank._arena is not None
        bounced = Accelerator(tensors[0].device, rank._arena)
        bounced.close()  # takes the registration back: pinned memory lies between from now on
        assert not bounced.direct
        rank._mover = Streamed(rank.columns, bounced, 1 << 20)
    return rank


def over(rank: Rank) -> tuple[set[str], set[str]]:
    """Poll as an engine's steps do, until something is over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        reports = rank.finished()
        if reports.sent or reports.received:
            assert rank.failed_blocks() == set()
            return reports.sent, reports.received
        time.sleep(0.001)
    raise AssertionError("it is never over")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("direct", [True, False])
def test_a_device_moves_the_bytes_that_the_cpu_moves(name: str, direct: bool, arena: str) -> None:  # noqa: FBT001
    kv = model(4, 9)
    cpu = rank_of(tensors_of(LAYOUTS[name], kv, 0, 1), 9, arena)
    gpu = rank_of(tensors_of(LAYOUTS[name], [one.cuda() for one in kv], 0, 1), 9, arena, direct=direct)
    send = Move("s", "t", 0, 4, 0, (7, 1, 3, 4))
    there, here = (Moves(sends=[Move("s", "t", offset, 4, 0, send.ids)]) for offset in (0, 1 << 20))
    gpu.start(there)
    assert over(gpu) == ({"s"}, set())
    cpu.start(here)
    assert over(cpu) == ({"s"}, set())
    data = Path(arena).read_bytes()
    assert data[: 1 << 20] == data[1 << 20 : 2 << 20]
    for skip, ids in ((0, (8, 2, 5, 6)), (2, (1, 7))):
        for rank in (cpu, gpu):
            rank.start(Moves(loads=[Move("l", "t", 0, 4, skip, ids)]))
            assert over(rank) == (set(), {"l"})
    every = tuple(range(9))
    cpu.start(Moves(sends=[Move("c", "t", 0, 9, 0, every)]))
    gpu.start(Moves(sends=[Move("g", "t", 1 << 20, 9, 0, every)]))
    assert over(cpu) == ({"c"}, set())
    assert over(gpu) == ({"g"}, set())
    data = Path(arena).read_bytes()
    assert data[: 1 << 20] == data[1 << 20 : 2 << 20]
    gpu.close()


@pytest.mark.parametrize("direct", [True, False])
def test_a_send_takes_what_the_compute_before_it_writes_and_no_step_waits(direct: bool, arena: str) -> None:  # noqa: FBT001
    tensor = torch.zeros((64, 8, BLOCK, 256), dtype=torch.bfloat16, device="cuda")
    rank = rank_of(large(tensor), 64, arena, direct=direct)
    for turn in (3, 7):
        torch.cuda._sleep(SLEEP_CYCLES)
        tensor.fill_(turn)
        began = time.monotonic()
        rank.start(Moves(sends=[Move(f"{turn}", "t", 0, 63, 0, tuple(range(1, 64)))]))
        reports = rank.finished()
        assert time.monotonic() - began < 0.1, "a step waited for the device"
        assert not reports.sent, "before the compute was through"
        assert over(rank) == ({f"{turn}"}, set())
        held = torch.frombuffer(bytearray(Path(arena).read_bytes()[: 63 * 8 * BLOCK * 512]), dtype=torch.bfloat16)
        assert set(held.float().unique().tolist()) == {float(turn)}
    rank.close()


def test_a_load_is_written_behind_the_compute_that_still_uses_its_blocks(arena: str) -> None:
    """On 0.23 a block is given away while a step in flight still writes it."""
    tensor = torch.zeros((64, 8, BLOCK, 256), dtype=torch.bfloat16, device="cuda")
    rank = rank_of(large(tensor), 64, arena)
    with Path(arena).open("r+b") as file:
        file.write(torch.full((63 * 8 * BLOCK * 256,), 5.0, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes())
    torch.cuda._sleep(SLEEP_CYCLES)
    tensor.fill_(9)  # the step in flight
    rank.start(Moves(loads=[Move("l", "t", 0, 63, 0, tuple(range(1, 64)))]))
    assert over(rank) == (set(), {"l"})
    seen = tensor[1:].float().unique()  # the next step, on the compute stream
    assert seen.tolist() == [5.0]
    rank.close()


def large(tensor: torch.Tensor) -> list[KvTensor]:
    from shared.engine.vllm_engine.geometry import share

    return kv_tensors({"l.0": tensor}, tensor.shape[0], BLOCK, {"l.0": share(tensor.shape[1], 0, 1)})
