"""What EngineCore is told, in every order in which it may ask."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.engine.vllm_engine.inside.scheduling import COMPLETE, Move, Moves, Scheduling
from shared.engine.vllm_engine.notes import Ended, FromVllm, Skipped, Transfer

BLOCK = 16


@dataclass
class Asking:
    """A request, as vLLM has it."""

    request_id: str = "r"
    num_prompt_tokens: int = 41
    kv_transfer_params: dict[str, Any] | None = None


@dataclass
class Desk:
    """A Scheduling and what it told."""

    told: list[FromVllm] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduling = Scheduling(BLOCK, self.told.append)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def loading(tokens: int = 40, **changes: Any) -> Asking:
    transfer = Transfer("t", 8192, tokens, -(-tokens // BLOCK))
    return Asking(**{"num_prompt_tokens": tokens + 1, "kv_transfer_params": transfer.params(sends=False), **changes})


def sending(tokens: int = 40) -> Asking:
    transfer = Transfer("t", 8192, tokens, -(-tokens // BLOCK))
    return Asking(num_prompt_tokens=tokens, kv_transfer_params=transfer.params(sends=True))


def test_a_load_covers_all_but_the_first_token_of_decode_and_is_asynchronous(desk: Desk) -> None:
    assert desk.scheduling.matched(loading(40), 0) == (40, True)
    assert desk.scheduling.matched(loading(40), 16) == (24, True)
    assert desk.told == []


def test_asking_has_no_effect_however_often(desk: Desk) -> None:
    for _ in range(3):
        assert desk.scheduling.matched(loading(40), 0) == (40, True)
    assert desk.scheduling.take() == Moves()


def test_a_load_goes_to_the_blocks_that_hold_the_buffers_tokens(desk: Desk) -> None:
    desk.scheduling.allocated(loading(40), [5, 6, 7, 8], 40)
    assert desk.scheduling.take() == Moves(loads=[Move("r", "t", 8192, 3, 0, (5, 6, 7))])
    assert desk.scheduling.take() == Moves()


def test_blocks_of_a_prefix_that_vllm_has_are_not_written(desk: Desk) -> None:
    desk.scheduling.allocated(loading(40), [5, 6, 7], 24)
    assert desk.scheduling.take() == Moves(loads=[Move("r", "t", 8192, 3, 1, (6, 7))])


def test_a_load_is_acted_on_once_though_vllm_tells_of_its_blocks_twice(desk: Desk) -> None:
    request = loading(40)
    desk.scheduling.allocated(request, [5, 6, 7], 40)
    desk.scheduling.take()
    desk.scheduling.allocated(request, [5, 6, 7], 0)
    assert desk.scheduling.take() == Moves()
    assert desk.told == []


def test_a_request_that_is_preempted_after_its_load_computes_its_prompt_itself(desk: Desk) -> None:
    request = loading(40)
    desk.scheduling.allocated(request, [5, 6, 7], 40)
    desk.scheduling.take()
    assert desk.scheduling.matched(request, 0) == (0, False)
    desk.scheduling.allocated(request, [1, 2, 3], 0)
    assert desk.scheduling.take() == Moves()
    assert not desk.scheduling.finished(request, "FINISHED_STOPPED", [1, 2, 3])
    assert desk.told == [Ended("t", moves=True)]


def test_a_prompt_that_is_wholly_cached_needs_no_load_and_says_so_once(desk: Desk) -> None:
    request = loading(48)
    assert desk.scheduling.matched(request, 48) == (0, False)
    desk.scheduling.allocated(request, [1, 2, 3, 4], 0)
    desk.scheduling.allocated(request, [1, 2, 3, 4], 0)
    assert desk.scheduling.matched(request, 0) == (0, False)  # preempted, and the cache was lost meanwhile
    assert desk.told == [Skipped("t")]
    assert not desk.scheduling.finished(request, "FINISHED_ABORTED", [])
    assert desk.told == [Skipped("t"), Ended("t", moves=False)]


def test_a_load_that_vllm_drops_for_a_longer_hit_of_its_own_is_skipped(desk: Desk) -> None:
    request = loading(40)
    assert desk.scheduling.matched(request, 32) == (8, True)
    desk.scheduling.allocated(request, [1, 2, 3], 0)
    assert desk.told == [Skipped("t")]


def test_a_complete_prompt_is_sent_from_the_blocks_that_hold_it(desk: Desk) -> None:
    request = sending(40)
    assert desk.scheduling.matched(request, 0) == (0, False)
    desk.scheduling.allocated(request, [9, 8, 7], 0)
    assert desk.scheduling.finished(request, COMPLETE, [9, 8, 7, 6])
    assert desk.told == [Ended("t", moves=True)]
    assert desk.scheduling.take() == Moves(sends=[Move("r", "t", 8192, 3, 0, (9, 8, 7))])


@pytest.mark.parametrize("status", ["FINISHED_ABORTED", "FINISHED_STOPPED", "FINISHED_ERROR", "FINISHED_IGNORED"])
def test_a_prompt_that_ends_in_any_other_way_sends_nothing(desk: Desk, status: str) -> None:
    assert not desk.scheduling.finished(sending(), status, [9, 8, 7])
    assert desk.told == [Ended("t", moves=False)]
    assert desk.scheduling.take() == Moves()


def test_a_prompt_without_all_its_blocks_sends_nothing(desk: Desk) -> None:
    assert not desk.scheduling.finished(sending(40), COMPLETE, [9, 8])
    assert desk.told == [Ended("t", moves=False)]


def test_a_request_that_ends_before_it_was_ever_scheduled_is_told_of(desk: Desk) -> None:
    assert not desk.scheduling.finished(loading(), "FINISHED_ABORTED", [])
    assert desk.told == [Ended("t", moves=False)]
    assert desk.scheduling.requests == 0


def test_a_load_in_flight_is_told_of_as_moving_when_its_request_is_aborted(desk: Desk) -> None:
    request = loading()
    desk.scheduling.allocated(request, [5, 6, 7], 40)
    assert not desk.scheduling.finished(request, "FINISHED_ABORTED", [5, 6, 7])
    assert desk.told == [Ended("t", moves=True)]
    assert len(desk.scheduling.take().loads) == 1  # vLLM waits for its report


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"do_remote_prefill": True},
        {"transfer": "t", "offset": "x", "tokens": 40, "blocks": 3, "do_remote_prefill": True},
        {"transfer": "t", "offset": 0, "tokens": 40, "blocks": 2, "do_remote_prefill": True},
        {"transfer": "t", "offset": 0, "tokens": 42, "blocks": 3, "do_remote_prefill": True},
        {"transfer": "t", "offset": 0, "tokens": 0, "blocks": 0, "do_remote_decode": True},
        {"transfer": "t", "offset": 0, "tokens": 40, "blocks": 3},
    ],
)
def test_a_request_without_a_transfer_that_fits_it_is_vllms_own(desk: Desk, params: dict[str, Any] | None) -> None:
    request = Asking(kv_transfer_params=params)
    assert desk.scheduling.matched(request, 0) == (0, False)
    desk.scheduling.allocated(request, [1, 2, 3], 0)
    assert not desk.scheduling.finished(request, COMPLETE, [1, 2, 3])
    assert desk.told == []
    assert desk.scheduling.take() == Moves()
