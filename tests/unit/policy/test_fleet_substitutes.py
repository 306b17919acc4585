"""One substitute for each loss: who is asked, for how long it is waited for, and when another is sent."""

from itertools import pairwise

import pytest

from shared.messages import Group, Member, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
    ConnectionRefused,
    LeaseLost,
    Place,
    PublishMap,
    Retire,
    SendDrain,
    Substituted,
)
from shared.policy.world import BusDown, BusUp, Tick
from tests.unit.policy.builders import seen
from tests.unit.policy.fleets import BEAT, DECODE, RULES, assigned, beat, leading, linked, mapping


def lose(fleet: Fleet, *alive: str, now: float) -> list[Action]:
    """Lose d1; the others are heard."""
    beat(fleet, *alive, now=now)
    return fleet.handle(LeaseLost("d1", (1, 1)), now)


def with_s1(*, joined: bool) -> Group:
    return Group("main", [Member("p1", (1, 1))], [Member("s1", (1, 7), joined)], prefills=1, decodes=1)


def test_a_substitute_is_joined_when_it_is_ready_under_its_new_epoch() -> None:
    fleet = leading("p1", "d1", "s1")
    lose(fleet, "p1", "s1", now=1.0)
    assert fleet.handle(AssignAccepted("s1"), 1.1) == []
    assert fleet.handle(seen("s1", state=State.STOPPED), 1.2) == []
    assert fleet.handle(LeaseLost("s1", (1, 1)), 1.3) == []
    assert fleet.handle(ConnectionRefused("s1", (1, 1)), 2.9) == []
    for now in (3.0, 4.0, 5.0):
        assert beat(fleet, "p1", now=now) == []
    assert fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7), state=State.STARTING), 6.0) == []
    assert fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7)), 6.5) == [
        PublishMap(mapping(with_s1(joined=False), version=3), Cause.READY)
    ]
    assert beat(fleet, "p1", now=6.5) == []
    [joined, told] = fleet.handle(linked("p1", "s1", s1=(1, 7)), 7.0)
    assert joined == PublishMap(mapping(with_s1(joined=True), version=4), Cause.JOINED)
    assert isinstance(told, Substituted)
    assert (told.place, told.instance, told.cause) == (DECODE, "s1", Cause.LEASE_LOST)
    took = {"ordered": 0.0, "accepted": 0.1, "starting": 4.9, "ready": 0.5, "joined": 0.5}
    assert dict(told.steps) == pytest.approx(took)


def test_a_loss_without_a_standby_is_filled_by_the_first_that_comes() -> None:
    fleet = leading("p1", "d1")
    assert [type(action) for action in lose(fleet, "p1", now=1.0)] == [PublishMap, Retire]
    assert fleet.handle(seen("s1"), 1.2) == [assigned("s1", DECODE, Cause.LEASE_LOST)]
    assert fleet.handle(seen("s2"), 1.3) == []


def test_a_standby_that_says_no_is_followed_by_the_next_at_once() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    assert fleet.handle(AssignFailed("s1", "leaving", certain=True), 1.1) == [
        assigned("s2", DECODE, Cause.ASSIGN_FAILED)
    ]
    fleet.handle(AssignFailed("s2", "leaving", certain=True), 1.2)
    assert beat(fleet, "s1", "s2", now=1.3) == []  # not asked again for a while
    assert beat(fleet, "p1", now=1.2 + RULES.unfit_s) == []
    assert beat(fleet, "s1", now=1.2 + RULES.unfit_s) == [assigned("s1", DECODE, Cause.ASSIGN_FAILED)]


def test_a_standby_whose_answer_is_missing_is_asked_again_and_gets_no_rival_at_first() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    now, actions = 1.0, list[Action]()
    for _ in range(RULES.assign_tries):
        assert fleet.handle(AssignFailed("s1", "no answer"), now) == []
        assert beat(fleet, "p1", "s1", "s2", now=now + BEAT) == []
        now += 2 * BEAT
        actions += beat(fleet, "p1", "s1", "s2", now=now)
    assert actions == [
        assigned("s1", DECODE, Cause.ASSIGN_FAILED),
        assigned("s1", DECODE, Cause.ASSIGN_FAILED),
        assigned("s2", DECODE, Cause.ASSIGN_FAILED),
    ]


def test_a_repeated_order_that_is_refused_was_perhaps_obeyed_the_first_time() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    fleet.handle(AssignFailed("s1", "no answer"), 1.0)
    assert beat(fleet, "p1", "s1", "s2", now=2.0) == [assigned("s1", DECODE, Cause.ASSIGN_FAILED)]
    assert fleet.handle(AssignFailed("s1", "nobody listens", certain=True), 2.1) == []
    assert beat(fleet, "p1", "s2", now=3.0) == []


def test_a_standby_that_heard_though_its_answer_was_lost_is_the_only_substitute() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    fleet.handle(AssignFailed("s1", "no answer"), 2.0)
    assert fleet.handle(seen("s1", state=State.DRAINING), 2.1) == []
    for now in (2.5, 3.5, 4.5):
        assert beat(fleet, "p1", "s2", now=now) == []
    assert fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7), state=State.STARTING), 4.6) == []
    assert beat(fleet, "p1", "s2", now=5.0) == []


def test_a_substitute_that_shows_no_life_in_time_is_followed_by_another_after_a_pause() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    fleet.handle(AssignAccepted("s1"), 1.1)
    fleet.handle(seen("s1", state=State.STOPPED), 1.2)
    now = 1.0
    while now < 1.1 + RULES.begin_s - BEAT:
        now += BEAT
        assert beat(fleet, "p1", "s2", now=now) == []
    late = 1.1 + RULES.begin_s
    assert fleet.handle(Tick(), late) == [Retire("s1", (1, 1), Cause.TOO_SLOW)]
    assert fleet.handle(Tick(), late + RULES.retry_s) == [assigned("s2", DECODE, Cause.MISSING)]


def test_a_substitute_that_loads_for_too_long_is_sent_away_and_followed_by_another() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    lose(fleet, "p1", "s1", "s2", now=1.0)
    fleet.handle(AssignAccepted("s1"), 1.1)
    actions: list[Action] = []
    now = 2.0
    while now < 1.0 + RULES.ready_s + 2.0:
        actions += fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7), state=State.STARTING), now)
        actions += beat(fleet, "p1", "s2", now=now)
        now += BEAT
    assert actions == [
        Retire("s1", (1, 7), Cause.TOO_SLOW),
        SendDrain("s1", Cause.TOO_SLOW),
        assigned("s2", DECODE, Cause.MISSING),
    ]


def test_substitutes_that_fail_one_after_another_are_sent_at_growing_intervals() -> None:
    fleet = leading("p1", "d1")
    sent: list[float] = []
    now = 1.0
    assert [type(action) for action in lose(fleet, "p1", now=now)] == [PublishMap, Retire]
    for step in range(60):
        now += BEAT
        standby = f"s{step}"
        for action in [*beat(fleet, "p1", now=now), *fleet.handle(seen(standby), now)]:
            assert isinstance(action, Assign)
            sent.append(now)
            fleet.handle(AssignAccepted(action.instance), now)
            fleet.handle(seen(action.instance, role=Role.DECODE, epoch=(1, 2), state=State.FAILED), now)
        fleet.handle(seen(standby, state=State.STOPPED, epoch=(1, 3)), now)
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert gaps == sorted(gaps)
    assert gaps[:4] == [1.0, 2.0, 4.0, 8.0]


def test_a_worker_that_is_started_again_by_its_supervisor_counts_as_the_substitute() -> None:
    fleet = leading("p1", "d1")
    lose(fleet, "p1", now=1.0)
    assert fleet.handle(seen("d1", epoch=(1, 2), state=State.STARTING), 1.5) == []
    assert fleet.handle(seen("s1"), 1.6) == []


def test_nothing_is_assigned_while_the_bus_is_down() -> None:
    fleet = leading("p1", "d1", "s1")
    beat(fleet, "p1", "s1", now=1.0)
    fleet.handle(BusDown(), 1.0)
    assert [type(action) for action in fleet.handle(LeaseLost("d1", (1, 1)), 1.1)] == [PublishMap, Retire]
    assert fleet.handle(BusUp(), 1.2) == [assigned("s1", DECODE, Cause.LEASE_LOST)]


def test_a_group_nobody_configured_is_kept_at_the_size_it_had() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(seen("d7", group="other"), 0.1)
    beat(fleet, "p1", "d1", now=1.0)
    fleet.handle(LeaseLost("d7", (1, 1)), 1.0)
    other = Place("chat", "other", Role.DECODE)
    assert fleet.handle(seen("s1"), 1.1) == [assigned("s1", other, Cause.LEASE_LOST)]
