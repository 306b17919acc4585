"""A rank reports every move once, to vLLM and to the worker, whatever becomes of it."""

import os
from collections.abc import Iterator

import msgspec
import pytest

from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.inside.rank import Rank
from shared.engine.vllm_engine.inside.scheduling import Move, Moves
from shared.engine.vllm_engine.notes import Gathered, Loaded, Lost, Plan, Registered
from shared.errors import ConfigError, EngineFailed
from tests.unit.vllm_engine.layouts import LAYOUTS, Wire, model, registered, tensors_of

ARENA = 1 << 16


@pytest.fixture
def arena() -> Iterator[str]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, ARENA)
    yield f"/proc/{os.getpid()}/fd/{fd}"
    os.close(fd)


def rank_of(arena: str, wire: Wire, /, **changes: object) -> Rank:
    tensors = tensors_of(LAYOUTS["0.32"], model(4, 6), 1, 2)
    parts = [msgspec.structs.replace(tensor.part, first=0, count=4) for tensor in tensors]
    plan = Plan(arena, ARENA, Geometry([Registered(0, 1, 0, 6, 8, parts, "")]).before)
    wire.answer = msgspec.structs.replace(plan, **changes)
    rank = Rank(wire)
    rank.register(tensors, registered(1, 2, 6))
    return rank


def move(request: str = "r", offset: int = 0, ids: tuple[int, ...] = (1, 2)) -> Move:
    return Move(request, f"t{request}", offset, len(ids), 0, ids)


def test_a_rank_registers_what_it_has(arena: str) -> None:
    wire = Wire()
    rank_of(arena, wire)
    (note,) = wire.notes
    assert isinstance(note, Registered)
    assert (note.rank, note.world, note.blocks, note.block_tokens) == (1, 2, 6, 8)
    assert [(part.heads, part.first, part.count) for part in note.parts] == [(4, 2, 2)] * 2
    assert note.layout == "test; BHNC torch.int16 [8, 6]"


def test_ranks_of_different_numbers_of_heads_have_the_same_layout() -> None:
    shapes = {one.shape for ranks in (1, 2, 4) for one in tensors_of(LAYOUTS["0.23 CUDA"], model(4, 6), 0, ranks)}
    assert len(shapes) == 1


def test_moves_are_reported_once_to_vllm_and_once_to_the_worker(arena: str) -> None:
    wire = Wire()
    rank = rank_of(arena, wire)
    rank.start(Moves(loads=[move("a")], sends=[move("b"), move("c")]))
    reports = rank.finished()
    assert (reports.sent, reports.received) == ({"b", "c"}, {"a"})
    assert rank.failed_blocks() == set()
    assert wire.notes[1:] == [Loaded(1, "ta"), Gathered(1, "tb"), Gathered(1, "tc")]
    again = rank.finished()
    assert (again.sent, again.received) == (set(), set())
    assert len(wire.notes) == 4


@pytest.mark.parametrize("bad", [move("a", offset=ARENA - 64), move("a", offset=-4096), move("a", ids=(1, 6))])
def test_a_load_that_fails_is_received_with_its_blocks_in_the_same_step(arena: str, bad: Move) -> None:
    wire = Wire()
    rank = rank_of(arena, wire)
    rank.start(Moves(loads=[bad, move("b", ids=(4,))]))
    assert rank.finished().received == {"a", "b"}
    assert rank.failed_blocks() == set(bad.ids)
    assert rank.failed_blocks() == set()
    lost, loaded = wire.notes[1:]
    assert isinstance(lost, Lost)
    assert (lost.rank, lost.transfer) == (1, "ta")
    assert loaded == Loaded(1, "tb")


def test_vllms_placeholder_for_no_block_is_never_called_failed(arena: str) -> None:
    rank = rank_of(arena, Wire())
    rank.start(Moves(loads=[move("a", offset=-1, ids=(0, 3))]))
    rank.finished()
    assert rank.failed_blocks() == {3}


def test_a_send_that_fails_is_sent_all_the_same_and_lost_to_the_worker(arena: str) -> None:
    wire = Wire()
    rank = rank_of(arena, wire)
    rank.start(Moves(sends=[move("a", offset=1 << 40)]))
    reports = rank.finished()
    assert (reports.sent, reports.received) == ({"a"}, set())
    assert rank.failed_blocks() == set()
    assert isinstance(wire.notes[1], Lost)


def test_blocks_that_do_not_add_up_are_a_failed_move(arena: str) -> None:
    rank = rank_of(arena, Wire())
    rank.start(Moves(loads=[Move("a", "ta", 0, 3, 0, (1, 2))]))
    assert rank.finished().received == {"a"}
    assert rank.failed_blocks() == {1, 2}


def test_a_rank_without_tensors_still_reports() -> None:
    wire = Wire()
    rank = Rank(wire)
    rank.start(Moves(loads=[move("a")], sends=[move("b")]))
    reports = rank.finished()
    assert (reports.sent, reports.received) == ({"b"}, {"a"})
    assert [type(note) for note in wire.notes] == [Lost, Lost]


def test_a_rank_that_has_closed_fails_what_comes_later(arena: str) -> None:
    rank = rank_of(arena, Wire())
    rank.close()
    rank.close()
    rank.start(Moves(loads=[move("a")]))
    assert rank.finished().received == {"a"}
    assert rank.failed_blocks() == {1, 2}


def test_registering_again_asks_for_no_second_plan(arena: str) -> None:
    wire = Wire()
    rank = rank_of(arena, wire)
    wire.answer = None
    rank.register(tensors_of(LAYOUTS["0.32"], model(4, 6), 1, 2), registered(1, 2, 6))
    rank.start(Moves(sends=[move("b")]))
    assert rank.finished().sent == {"b"}
    assert len([note for note in wire.notes if isinstance(note, Registered)]) == 1


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"arena": "/nowhere/memory"}, EngineFailed, "/nowhere/memory cannot be mapped"),
        ({"arena_bytes": 1 << 40}, EngineFailed, "cannot be mapped"),
        ({"before": {}}, ConfigError, "no place in a buffer is planned for KV tensor model.layers.0.attn"),
        ({"before": {"model.layers.0.attn": 1, "model.layers.1.attn": 2}}, ConfigError, "whole number"),
    ],
)
def test_a_plan_that_cannot_be_used_keeps_the_engine_from_starting(
    arena: str, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rank_of(arena, Wire(), **changes)
