"""KV tensors as vllm-ascend has them, moved by streams of a device called `npu`; see torch_engine/test_npu.py."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shared.engine.vllm_engine.inside.moving import Accelerator, Column, Mover, Outcome, Straight, Streamed
from shared.engine.vllm_engine.inside.scheduling import Move
from shared.engine.vllm_engine.inside.tensors import KvTensor
from tests.unit.vllm_engine.layouts import LAYOUTS, tensors_of

SENT = Move("r", "t", offset=256, blocks=3, skip=0, ids=(4, 1, 5))
LOADED = Move("r", "t", offset=256, blocks=3, skip=1, ids=(2, 0))


def model() -> list[Tensor]:
    """[blocks, heads, 2, tokens, size] of each layer."""
    return [torch.randn((6, 2, 2, 8, 3), generator=torch.Generator().manual_seed(layer)) for layer in range(3)]


def columns_of(tensors: list[KvTensor], arena: Tensor) -> Callable[[Move, bool], list[Column]]:
    def columns(move: Move, sends: bool) -> list[Column]:  # noqa: FBT001  a Columns
        found, start = [], move.offset
        for tensor in tensors:
            nbytes = tensor.part.count * move.blocks * tensor.slab_bytes
            found.append(Column(tensor, tensor.column(arena[start : start + nbytes], move.skip)))
            start += nbytes
        return found

    return columns


def over(mover: Mover) -> list[Outcome]:
    """Poll until something is."""
    deadline = time.monotonic() + 20
    while not (found := mover.poll()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


@pytest.fixture(autouse=True)
def _pageable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a driver can pin memory."""
    monkeypatch.setattr(Accelerator, "pinned", lambda _, like: torch.empty(like.shape, dtype=like.dtype))


@pytest.mark.parametrize("layout", ["Ascend", "Ascend MLA"])
def test_kv_leaves_an_npu_and_enters_one_as_on_the_processor(layout: str) -> None:
    arenas = {device: torch.zeros(1 << 14, dtype=torch.uint8) for device in ("cpu", "npu")}
    kv = {device: [layer.to(device) for layer in model()] for device in ("cpu", "npu")}
    tensors = {device: tensors_of(LAYOUTS[layout], kv[device], 0, 1) for device in ("cpu", "npu")}
    straight = Straight(columns_of(tensors["cpu"], arenas["cpu"]))
    at = Accelerator(torch.device("npu:0"), arenas["npu"])
    streamed = Streamed(columns_of(tensors["npu"], arenas["npu"]), at, scratch_bytes=1024)
    assert not at.direct
    assert [one.part for one in tensors["npu"]] == [one.part for one in tensors["cpu"]]

    straight.start(SENT, sends=True)
    streamed.start(SENT, sends=True)
    assert over(streamed) == over(straight) == [Outcome(SENT, sends=True)]
    assert arenas["cpu"].any()
    assert torch.equal(arenas["npu"], arenas["cpu"])
    assert at.side.waited_for, "a gather sees what was computed before it"

    straight.start(LOADED, sends=False)
    streamed.start(LOADED, sends=False)
    assert over(streamed) == over(straight) == [Outcome(LOADED, sends=False)]
    for ours, theirs in zip(tensors["npu"], tensors["cpu"], strict=True):
        assert ours._tensor.device == torch.device("npu:0")
        assert torch.equal(ours._tensor.cpu(), theirs._tensor)
    streamed.close()
    assert at.side.synchronized


def test_a_block_that_is_not_there_fails_one_move_and_not_the_others() -> None:
    arena = torch.zeros(1 << 14, dtype=torch.uint8)
    tensors = tensors_of(LAYOUTS["Ascend"], [layer.to("npu") for layer in model()], 0, 1)
    mover = Streamed(columns_of(tensors, arena), Accelerator(torch.device("npu:0"), arena))
    wrong = Move("w", "w", offset=0, blocks=1, skip=0, ids=(6,))
    mover.start(wrong, sends=True)
    mover.start(SENT, sends=True)
    [(move, sends, why)] = over(mover)
    assert (move, sends, "6" in why) == (wrong, True, True)
    assert over(mover) == [Outcome(SENT, sends=True)]
    mover.close()
