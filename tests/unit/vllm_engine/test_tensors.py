"""KV leaves one engine and enters another unchanged, whatever the layout and however many ranks each has."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.vllm_engine.geometry import Geometry, Share
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.scheduling import Move, Moves
from shared.engine.vllm_engine.inside.tensors import kv_tensors
from shared.engine.vllm_engine.notes import Plan, Registered
from shared.errors import ConfigError
from tests.unit.vllm_engine.layouts import LAYOUTS, Layout, Wire, model, registered, tensors_of

ARENA = 1 << 17
OFFSET = 4096


@pytest.fixture(scope="module")
def arena() -> Iterator[str]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, ARENA)
    yield f"/proc/{os.getpid()}/fd/{fd}"
    os.close(fd)


def engine(layout: Layout, kv: list[torch.Tensor], ranks: int, arena: str) -> list[Rank]:
    """Ranks that have registered and got their plan."""
    tensors = [tensors_of(layout, kv, rank, ranks) for rank in range(ranks)]
    blocks = kv[0].shape[0]
    ends = []
    for rank in range(ranks):
        parts = [tensor.part for tensor in tensors[rank]]
        ends.append(Registered(rank, ranks, 0, blocks, 8, parts, "test"))
    plan = Plan(arena, ARENA, Geometry(ends).before)
    made = []
    for rank in range(ranks):
        wire = Wire()
        wire.answer = plan
        made.append(Rank(wire))
        made[rank].register(tensors[rank], registered(rank, ranks, blocks))
    return made


def gathered(ranks: list[Rank], arena: str, ids: list[int]) -> bytes:
    with Path(arena).open("r+b", buffering=0) as file:
        file.write(bytes(ARENA))
    for rank in ranks:
        rank.start(Moves(sends=[Move("x", "t", OFFSET, len(ids), 0, tuple(ids))]))
        assert rank.finished().sent == {"x"}
    return Path(arena).read_bytes()


def scatter(ranks: list[Rank], ids: list[int], blocks: int, skip: int) -> None:
    for rank in ranks:
        rank.start(Moves(loads=[Move("y", "t", OFFSET, blocks, skip, tuple(ids))]))
        assert rank.finished().received == {"y"}
        assert rank.failed_blocks() == set()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("some", "others"), [(1, 1), (1, 2), (2, 1), (4, 2), (2, 4), (1, 8), (8, 1)])
def test_blocks_arrive_in_an_engine_of_another_number_of_ranks(name: str, some: int, others: int, arena: str) -> None:
    layout = LAYOUTS[name]
    sent, had = model(4, 6), model(4, 7, seed=99)
    ids, into = [4, 1, 5], [2, 6, 1]
    scattered = engine(layout, had, others, arena)
    untouched = gathered(scattered, arena, [3, 4, 5])
    on_the_way = gathered(engine(layout, sent, some, arena), arena, ids)
    scatter(scattered, into, 3, 0)
    assert gathered(scattered, arena, into) == on_the_way
    assert gathered(scattered, arena, [3, 4, 5]) == untouched
    whole = engine(layout, sent, 1, arena)
    assert gathered(whole, arena, ids) == on_the_way, "the buffer depends on the number of ranks"


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.heads])
def test_a_buffer_holds_heads_outside_and_blocks_inside(name: str, arena: str) -> None:
    kv = model(4, 6)
    data = gathered(engine(LAYOUTS[name], kv, 2, arena), arena, [4, 1])
    words = torch.frombuffer(bytearray(data[OFFSET:]), dtype=torch.int16)
    slab = kv[0][0, 0].numel()
    split = 2 if name == "Ascend" else 1  # K and V are tensors of their own
    for layer in range(2):
        for half in range(split):
            for head in range(4):
                for place, block in enumerate([4, 1]):
                    size = slab // split
                    start = (((layer * split + half) * 4 + head) * 2 + place) * size
                    whole = kv[layer][block, head] if split == 1 else kv[layer][block, head, half]
                    assert sorted(words[start : start + size].tolist()) == sorted(whole.flatten().tolist())


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_prefix_that_the_receiver_has_is_not_written(name: str, ranks: int, arena: str) -> None:
    layout = LAYOUTS[name]
    sent, had = model(4, 6), model(4, 7, seed=99)
    receiver = engine(layout, had, ranks, arena)
    before = gathered(receiver, arena, [2])
    wanted = gathered(engine(layout, sent, 1, arena), arena, [1, 5])
    gathered(engine(layout, sent, 1, arena), arena, [4, 1, 5])
    scatter(receiver, [6, 3], 3, 1)
    assert gathered(receiver, arena, [6, 3]) == wanted
    assert gathered(receiver, arena, [2]) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_floats_of_any_width_travel_as_they_are(dtype: torch.dtype, arena: str) -> None:
    kv = [layer.view(torch.uint8).view(dtype) for layer in model(4, 6)]
    data = gathered(engine(LAYOUTS["0.32"], kv, 1, arena), arena, [3])
    slabs = torch.frombuffer(bytearray(data[OFFSET:]), dtype=torch.uint8)
    wanted = torch.cat((kv[0].view(torch.uint8)[3, 0, 0], kv[0].view(torch.uint8)[3, 0, 1]), -1).flatten()
    assert slabs[: len(wanted)].tolist() == wanted.tolist()


@given(st.permutations(range(1, 9)), st.integers(1, 8), st.data())
def test_any_blocks_in_any_order_arrive(order: list[int], count: int, data: st.DataObject) -> None:
    fd = os.memfd_create("hypothesis")
    os.ftruncate(fd, ARENA)
    try:
        arena = f"/proc/{os.getpid()}/fd/{fd}"
        into = data.draw(st.permutations(range(1, 9)))[:count]
        skip = data.draw(st.integers(0, count - 1))
        layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))]
        receiver = engine(layout, model(4, 9, seed=99), 2, arena)
        sender = engine(layout, model(4, 9), 1, arena)
        wanted = gathered(sender, arena, order[skip:count])
        gathered(sender, arena, order[:count])
        scatter(receiver, into[skip:], count, skip)
        assert gathered(receiver, arena, into[skip:]) == wanted
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("shape", "among"),
    [
        ((2, 10, 8, 4, 3), False),  # ROCm: K and V outside
        ((10, 3, 8, 6), False),  # another number of heads
        ((10, 4, 7, 6), False),  # blocks of another length
        ((15, 4, 8, 6), False),  # no whole number of kernel blocks
        ((30, 4, 8, 6), False),  # kernel blocks that do not divide the manager's
        ((10, 8, 12), False),  # as of MLA, but with heads
        ((10, 4, 8, 3), True),  # heads before tokens among several
        ((10,), False),
    ],
)
def test_a_shape_that_no_layout_explains_is_refused_by_its_name(shape: tuple[int, ...], among: bool) -> None:  # noqa: FBT001
    tensor = torch.zeros(shape, dtype=torch.int16)
    with pytest.raises(ConfigError, match=r"model.layers.3.attn.* has shape .*10 blocks of 8 tokens and 4 KV heads"):
        kv_tensors(
            {"model.layers.3.attn": (tensor, tensor) if among else tensor},
            10,
            8,
            {"model.layers.3.attn": Share(4, 0, 4, writes=True)},
        )


def test_two_heads_in_a_rank_are_not_taken_for_keys_and_values() -> None:
    tensor = torch.zeros((10, 2, 8, 2, 3), dtype=torch.int16)
    tensor[:, :, :, 1] = 7
    (found,) = kv_tensors({"l.0": tensor}, 10, 8, {"l.0": Share(4, 2, 2, writes=True)})
    first, second = found.gather(found.rows([1]))
    assert set(first.tolist()) == {0}
    assert set(second.tolist()) == {7}


def test_layers_come_in_the_order_of_their_numbers_and_a_shared_tensor_once() -> None:
    tensors = [torch.zeros((10, 4, 8, 6)) for _ in range(3)]
    names = ["m.layers.10.attn", "m.layers.2.attn", "m.layers.11.attn"]
    layers = {**dict(zip(names, tensors, strict=True)), "m.layers.12.attn": tensors[0]}
    found = kv_tensors(layers, 10, 8, dict.fromkeys(layers, Share(4, 0, 4, writes=True)))
    assert [one.part.name for one in found] == ["m.layers.2.attn", "m.layers.10.attn", "m.layers.11.attn"]


@pytest.mark.parametrize("ids", [[], [-1], [10], [3, 12]])
def test_blocks_that_do_not_exist_are_an_error_not_a_write(ids: list[int]) -> None:
    (found,) = kv_tensors({"l.0": torch.zeros((10, 4, 8, 6))}, 10, 8, {"l.0": Share(4, 0, 4, writes=True)})
    with pytest.raises(IndexError):
        found.rows(ids)
