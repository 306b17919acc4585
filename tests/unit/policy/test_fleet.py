"""One claim per test; each compares the whole list of actions."""

from itertools import pairwise

from shared.messages import Epoch, Group, InstanceRecord, Member, Role, ScenarioMap, State
from shared.policy.fleet import Fleet
from shared.policy.fleet_events import (
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
    ConnectionRefused,
    DrainAsked,
    FleetRules,
    LeaderGained,
    LeaderLost,
    LeaseLost,
    Place,
    PublishMap,
    Retire,
    SendDrain,
)
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, Tick
from tests.unit.policy.builders import scenario_map, seen

PREFILL = Place("chat", "main", Role.PREFILL)
DECODE = Place("chat", "main", Role.DECODE)
RULES = FleetRules(settle_s=5.0)
BEAT = RULES.heartbeat_s
LEAD: Epoch = (1, 1)


def published(*names: str, version: int, cause: Cause, leader: Epoch = LEAD, **epochs: Epoch) -> PublishMap:
    return PublishMap(scenario_map(*names, version=version, leader=leader, epochs=epochs), cause)


def leading(*names: str, now: float = 0.0, prefill: int = 1, decode: int = 1, settled: bool = True) -> Fleet:
    """A fleet that leads and has heard all of these."""
    fleet = Fleet({PREFILL: prefill, DECODE: decode}, RULES)
    for name in names:
        fleet.handle(seen(name), now)
    fleet.handle(LeaderGained(LEAD), now)
    if settled:
        fleet._holes.elapse(now + RULES.settle_s)
        fleet.handle(Tick(), now)
    return fleet


def beat(fleet: Fleet, *names: str, now: float) -> list[Action]:
    return [action for name in names for action in fleet.handle(seen(name), now)]


def assigned(standby: str, place: Place, cause: Cause) -> Assign:
    return Assign(standby, place.role, place.scenario, place.group, cause)


# ---- joining


def test_ready_instances_join_their_group_one_version_each() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, RULES)
    assert fleet.handle(LeaderGained(LEAD), 0.0) == [published(version=1, cause=Cause.LED)]
    assert fleet.handle(seen("p1"), 0.1) == [
        PublishMap(ScenarioMap("chat", 2, LEAD, [Group("main", [Member("p1", (1, 1))])]), Cause.READY)
    ]
    assert fleet.handle(seen("d1"), 0.2) == [published("p1", "d1", version=3, cause=Cause.READY)]
    assert fleet.handle(seen("d1"), 0.3) == []


def test_one_that_still_starts_is_not_in_the_map() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(seen("d2", state=State.STARTING), 0.1) == []
    assert fleet.handle(seen("d2"), 0.2) == [published("p1", "d1", "d2", version=2, cause=Cause.READY)]


def test_one_that_names_no_group_joins_the_default_one_and_others_form_their_own() -> None:
    fleet = leading("p1", "d1")
    [action] = fleet.handle(seen("d2", group=""), 0.1)
    assert action == published("p1", "d1", "d2", version=2, cause=Cause.READY)
    [action] = fleet.handle(seen("d3", group="other"), 0.2)
    assert isinstance(action, PublishMap)
    assert [group.name for group in action.map.groups] == ["main", "other"]


def test_a_new_epoch_of_a_member_is_a_new_version() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(seen("d1", epoch=(2, 1)), 0.1) == [
        published("p1", "d1", version=2, cause=Cause.NEW_EPOCH, d1=(2, 1))
    ]


def test_a_status_of_an_older_epoch_or_number_is_refused() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(seen("d1", epoch=(1, 5), number=3), 0.1)
    assert fleet.handle(seen("d1", epoch=(1, 4), number=9, state=State.FAILED), 0.2) == []
    assert fleet.handle(seen("d1", epoch=(1, 5), number=2, state=State.FAILED), 0.2) == []
    assert fleet.map("chat") == scenario_map("p1", "d1", version=2, epochs={"d1": (1, 5)})


# ---- losses: the map first, then one substitute


def test_a_silent_member_leaves_the_map_and_then_one_standby_takes_its_place() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    for step in range(1, 4):
        assert beat(fleet, "p1", "s1", "s2", now=step * BEAT) == []
    assert fleet.next_deadline() == 4 * BEAT
    assert fleet.handle(Tick(), 4 * BEAT) == [
        published("p1", version=2, cause=Cause.SILENT),
        Retire("d1", (1, 1), Cause.SILENT),
        assigned("s1", DECODE, Cause.SILENT),
    ]


def test_a_member_that_lost_its_lease_and_is_silent_is_lost_at_once() -> None:
    fleet = leading("p1", "d1", "s1")
    beat(fleet, "p1", "s1", now=1.0)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 1.0) == [
        published("p1", version=2, cause=Cause.LEASE_LOST),
        Retire("d1", (1, 1), Cause.LEASE_LOST),
        assigned("s1", DECODE, Cause.LEASE_LOST),
    ]


def test_a_member_that_lost_its_lease_but_speaks_may_come_with_a_new_epoch() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(LeaseLost("d1", (1, 1)), 0.1) == []
    assert fleet.handle(seen("d1", epoch=(2, 1)), 1.0) == [
        published("p1", "d1", version=2, cause=Cause.NEW_EPOCH, d1=(2, 1))
    ]
    beat(fleet, "p1", "s1", now=2.0)
    assert fleet.handle(Tick(), 0.1 + RULES.lease_grace_s) == []


def test_a_member_that_speaks_on_without_a_lease_is_lost_and_never_believed_again() -> None:
    fleet = leading("p1", "d1", "s1")
    fleet.handle(LeaseLost("d1", (1, 1)), 0.1)
    for step in range(1, 5):
        assert beat(fleet, "p1", "d1", "s1", now=step * BEAT) == []
    assert fleet.handle(Tick(), 0.1 + RULES.lease_grace_s) == [
        published("p1", version=2, cause=Cause.LEASE_LOST),
        Retire("d1", (1, 1), Cause.LEASE_LOST),
        assigned("s1", DECODE, Cause.LEASE_LOST),
    ]
    assert fleet.handle(seen("d1"), 2.2) == []
    assert fleet.handle(seen("d1", epoch=(1, 2)), 2.3) == [
        published("p1", "d1", version=3, cause=Cause.READY, d1=(1, 2))
    ]


def test_a_refused_connection_of_one_that_is_late_is_a_loss_and_of_one_just_heard_is_not() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 0.1) == []
    beat(fleet, "p1", "s1", now=0.9)
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.0) == [
        published("p1", version=2, cause=Cause.REFUSED),
        Retire("d1", (1, 1), Cause.REFUSED),
        assigned("s1", DECODE, Cause.REFUSED),
    ]


def test_news_about_an_older_epoch_is_no_news() -> None:
    fleet = leading("p1", "d1", "s1")
    fleet.handle(seen("d1", epoch=(1, 5)), 0.1)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 0.2) == []
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.0) == []


def test_several_signs_of_one_loss_bring_one_substitute() -> None:
    fleet = leading("p1", "d1", "s1", "s2", "s3")
    beat(fleet, "p1", "s1", "s2", "s3", now=1.0)
    first = fleet.handle(LeaseLost("d1", (1, 1)), 1.0)
    assert [type(action) for action in first] == [PublishMap, Retire, Assign]
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.1) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 1.2) == []
    assert fleet.handle(seen("d1", state=State.FAILED), 1.3) == []
    assert beat(fleet, "p1", "s2", "s3", now=1.4) == []


def test_a_worker_that_is_busy_without_a_step_is_stuck_and_sent_away() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, FleetRules(stuck_s=2.0))
    for name in ("p1", "d1", "s1"):
        fleet.handle(seen(name), 0.0)
    fleet.handle(LeaderGained(LEAD), 0.0)
    actions: list[Action] = []
    for step in range(5):
        actions += fleet.handle(seen("d1", busy=True, steps=7), step * BEAT)
        actions += beat(fleet, "p1", "s1", now=step * BEAT)
    assert actions == [
        published("p1", version=2, cause=Cause.STUCK),
        Retire("d1", (1, 1), Cause.STUCK),
        SendDrain("d1", Cause.STUCK),
        assigned("s1", DECODE, Cause.STUCK),
    ]
    assert fleet.handle(seen("d1"), 2.6) == []


def test_a_busy_worker_that_makes_steps_is_not_stuck() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, FleetRules(stuck_s=2.0))
    fleet.handle(seen("d1"), 0.0)
    fleet.handle(LeaderGained(LEAD), 0.0)
    assert [fleet.handle(seen("d1", busy=True, steps=step), step * BEAT) for step in range(1, 20)] == [[]] * 19


def test_a_member_that_drains_by_itself_leaves_the_map_and_is_replaced() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(seen("d1", state=State.DRAINING), 0.1) == [
        published("p1", version=2, cause=Cause.DRAINING),
        assigned("s1", DECODE, Cause.DRAINING),
    ]
    assert fleet.handle(seen("d1", state=State.STOPPED), 0.2) == []


def test_a_drain_that_was_asked_for_removes_first_and_does_not_let_it_back() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(DrainAsked("d1"), 0.1) == [
        published("p1", version=2, cause=Cause.DRAINING),
        SendDrain("d1", Cause.DRAINING),
        assigned("s1", DECODE, Cause.DRAINING),
    ]
    assert fleet.handle(seen("d1"), 0.2) == []
    assert fleet.handle(seen("d1", state=State.DRAINING), 0.3) == []
    assert fleet.handle(DrainAsked("unknown"), 0.4) == []


def test_a_member_that_was_only_silent_for_a_while_may_come_back() -> None:
    fleet = leading("p1", "d1")
    beat(fleet, "p1", now=1.0)
    assert fleet.handle(Tick(), 2.0)[0] == published("p1", version=2, cause=Cause.SILENT)
    assert fleet.handle(seen("d1"), 2.1) == [published("p1", "d1", version=3, cause=Cause.READY)]


def test_nobody_is_lost_while_nobody_is_heard() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(Tick(), 60.0) == []
    assert beat(fleet, "p1", "d1", "s1", now=60.1) == []
    assert fleet.handle(Tick(), 61.0) == []


def test_a_pulse_shows_that_the_silence_of_all_others_is_real() -> None:
    fleet = leading("p1", "d1")
    actions: list[Action] = []
    for now in (1.0, 2.0):
        actions += fleet.handle(PulseSeen(), now)
    assert actions[0] == published(version=2, cause=Cause.SILENT)
    assert {action.instance for action in actions if isinstance(action, Retire)} == {"p1", "d1"}


# ---- substitutes


def lose(fleet: Fleet, *alive: str, now: float) -> list[Action]:
    """Lose d1; the others are heard."""
    beat(fleet, *alive, now=now)
    return fleet.handle(LeaseLost("d1", (1, 1)), now)


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
        PublishMap(
            ScenarioMap("chat", 3, LEAD, [Group("main", [Member("p1", (1, 1))], [Member("s1", (1, 7))])]),
            Cause.READY,
        )
    ]


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


# ---- lead


def test_a_follower_observes_and_does_nothing() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, RULES)
    assert beat(fleet, "p1", "d1", "s1", now=0.0) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 5.0) == []
    assert fleet.handle(DrainAsked("p1"), 5.0) == []


def test_a_leader_that_lost_its_lead_does_nothing_any_more() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(LeaderLost(), 0.1) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 5.0) == []
    assert fleet.handle(Tick(), 50.0) == []


def test_a_leader_that_sees_the_map_of_a_later_one_follows_it() -> None:
    fleet = leading("p1", "d1", "s1")
    later = scenario_map("p1", version=9, leader=(1, 2))
    assert fleet.handle(MapSeen(later), 0.1) == []
    assert fleet.map("chat") == later
    assert not fleet.leading


def test_a_new_leader_outranks_the_old_maps_and_sends_no_second_substitute() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, RULES)
    beat(fleet, "p1", "s2", now=0.0)
    old = scenario_map("p1", version=4, leader=(1, 1))  # d1 was lost, and s1 sent, under the old leader
    assert fleet.handle(LeaderGained((1, 2), (old,)), 0.0) == [
        published("p1", version=5, cause=Cause.LED, leader=(1, 2))
    ]
    assert fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7), state=State.STARTING), 3.0) == []
    assert beat(fleet, "p1", "s2", now=4.0) == []
    assert fleet.handle(Tick(), RULES.settle_s) == []
    assert [type(action) for action in fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7)), 9.0)] == [PublishMap]


def test_a_new_leader_learns_from_the_records_who_is_on_the_way() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, RULES)
    beat(fleet, "p1", "s2", now=0.0)
    record = InstanceRecord("s1", Role.DECODE, State.STARTING, (1, 7), "chat", "main")
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", version=4),), (record,)), 0.0)
    for step in range(1, 20):
        assert beat(fleet, "p1", "s2", now=step * BEAT) == []


def test_a_new_leader_fills_old_holes_when_those_on_the_way_had_time_to_show() -> None:
    fleet = Fleet({PREFILL: 1, DECODE: 1}, RULES)
    beat(fleet, "p1", "s2", now=0.0)
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", version=4),)), 0.0)
    assert beat(fleet, "p1", "s2", now=RULES.settle_s - 0.1) == []
    assert fleet.handle(Tick(), RULES.settle_s) == [assigned("s2", DECODE, Cause.MISSING)]


def test_a_new_leader_fills_at_once_what_is_lost_under_its_own_lead() -> None:
    fleet = Fleet({PREFILL: 2, DECODE: 1}, RULES)
    beat(fleet, "p1", "s1", "s2", now=0.0)
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", "d1", version=4),)), 0.0)
    actions: list[Action] = []
    for now in (0.5, 1.0, 1.5, 2.0):
        actions += beat(fleet, "p1", "s1", "s2", now=now)
    assert actions == [
        published("p1", version=6, cause=Cause.SILENT, leader=(1, 2)),
        Retire("d1", (1, 1), Cause.SILENT),
        assigned("s1", DECODE, Cause.SILENT),
    ]


def test_a_leader_whose_maps_redis_forgot_goes_on_with_its_own() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(LeaderLost(), 0.1)
    assert fleet.handle(LeaderGained((2, 1)), 0.2) == [published("p1", "d1", version=2, cause=Cause.LED, leader=(2, 1))]
