"""Which of several equal prefills is fed: one until it is full, one that knows the beginning, everybody's choice."""

from shared.messages import Role
from shared.policy.affinity import CLOSE, HOLDERS, MOST, Affinity, Known, boundary
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import Cause, Offer, OfferAccepted
from shared.policy.placement import FleetView
from shared.policy.ring import Ring
from shared.policy.routes import RouteRules
from tests.unit.policy.builders import scenario_map, seen, status
from tests.unit.policy.parted import PATIENT, dispatcher_over, group, offer
from tests.unit.policy.views import rank

FOUR = group("a", "p1", "p2", "p3", "p4", "d1")
FILL = RouteRules(fill=True)
KNOWING = RouteRules(affinity=True)
PREFIX = (0x10, 0x20, 0x30)


def placed(dispatcher: Dispatcher, request_id: str, **others: object) -> Offer:
    made = offer(dispatcher, request_id, **others)
    dispatcher.handle(OfferAccepted(request_id, made.attempt, made.instance), 0.0)
    return made


# ---- filling


def test_one_prefill_is_fed_until_it_is_full_and_then_the_next() -> None:
    dispatcher = dispatcher_over(FOUR, free=2, routes=FILL)
    made = [placed(dispatcher, f"r{number}") for number in range(8)]
    names = [one.instance for one in made]
    assert names[::2] == names[1::2]
    assert len(set(names)) == 4
    assert [one.route for one in made] == ["fewest_streams", "fill"] * 4


def test_spread_feeds_all_in_turn() -> None:
    dispatcher = dispatcher_over(FOUR, free=2)
    assert len({placed(dispatcher, f"r{number}").instance for number in range(4)}) == 4


def test_filling_goes_on_where_a_slot_comes_free() -> None:
    dispatcher = dispatcher_over(FOUR, free=1, routes=FILL)
    first = placed(dispatcher, "a").instance
    dispatcher.handle(seen(first, 1, group="a"), 0.0)
    dispatcher.view.settled(first)
    assert placed(dispatcher, "b") == Offer("b", 0, first, Cause.ARRIVED, "fill")


def test_one_that_rejected_is_filled_no_more() -> None:
    dispatcher = dispatcher_over(FOUR, free=4, routes=FILL)
    first = placed(dispatcher, "a").instance
    dispatcher.view.dispatched(first)
    dispatcher.view.rejected(first)
    assert placed(dispatcher, "b").instance != first


# ---- known beginnings


def test_a_prompt_goes_where_its_beginning_was_computed() -> None:
    dispatcher = dispatcher_over(FOUR, routes=KNOWING)
    home = placed(dispatcher, "a", prefix=PREFIX).instance
    longer = placed(dispatcher, "b", prefix=(*PREFIX, 0x40))
    assert longer == Offer("b", 0, home, Cause.ARRIVED, "prefix 192")
    assert longer.kind == "prefix"


def test_the_longest_known_beginning_wins() -> None:
    dispatcher = dispatcher_over(FOUR, routes=KNOWING)
    affinity = dispatcher._routes.affinity
    affinity.learn("chat", PREFIX[:1], "p1")
    affinity.learn("chat", PREFIX, "p2")
    affinity.learn("chat", PREFIX[:2], "p3")
    assert placed(dispatcher, "a", prefix=PREFIX).instance == "p2"


def test_a_known_beginning_does_not_overload() -> None:
    dispatcher = dispatcher_over(FOUR, free=8, routes=KNOWING)
    made = [placed(dispatcher, f"r{number}", prefix=PREFIX).instance for number in range(12)]
    counts = [made.count(name) for name in set(made)]
    assert max(counts) <= min(counts) + 2  # the slack, and the one that used it
    assert set(made) == {"p1", "p2", "p3", "p4"}


def test_slack_lets_the_holder_have_more() -> None:
    dispatcher = dispatcher_over(FOUR, free=8, routes=RouteRules(affinity=True, slack=3))
    made = [placed(dispatcher, f"r{number}", prefix=PREFIX).instance for number in range(4)]
    assert len(set(made)) == 1


def test_a_full_holder_is_passed_over() -> None:
    dispatcher = dispatcher_over(FOUR, free=1, routes=RouteRules(affinity=True, slack=9))
    assert placed(dispatcher, "a", prefix=PREFIX).instance != placed(dispatcher, "b", prefix=PREFIX).instance


def test_only_what_was_accepted_is_remembered() -> None:
    dispatcher = dispatcher_over(FOUR, routes=KNOWING)
    offer(dispatcher, "a", prefix=PREFIX)
    assert list(dispatcher._routes.affinity.known("chat", PREFIX)) == []


def test_a_new_incarnation_has_an_empty_cache() -> None:
    dispatcher = dispatcher_over(FOUR, routes=KNOWING)
    home = placed(dispatcher, "a", prefix=PREFIX).instance
    dispatcher.handle(seen(home, 4, epoch=(1, 2), group="a"), 0.1)
    assert list(dispatcher._routes.affinity.known("chat", PREFIX)) == []


def test_beginnings_of_another_scenario_are_not_known() -> None:
    affinity = Affinity(lambda _: (1, 1))
    affinity.learn("chat", PREFIX, "p1")
    assert list(affinity.known("code", PREFIX)) == []
    assert list(affinity.known("chat", PREFIX)) == [Known("p1", 192)]


def test_few_holders_of_a_beginning_are_remembered_the_last_ones() -> None:
    affinity = Affinity(lambda _: (1, 1))
    for number in range(10):
        affinity.learn("chat", PREFIX[:1], f"p{number}")
    assert [one.instance for one in affinity.known("chat", PREFIX)] == [f"p{number}" for number in range(9, 5, -1)]
    assert HOLDERS == 4


def test_boundaries_lie_close_at_first_and_then_ever_wider() -> None:
    ends = [boundary(place) for place in range(MOST)]
    assert ends[: CLOSE + 2] == [64 * number for number in range(1, CLOSE + 1)] + [2048, 4096]
    assert ends == sorted(set(ends))


# ---- nothing known


def test_gateways_that_know_nothing_agree_on_the_place_of_a_beginning() -> None:
    names = [f"p{number}" for number in range(32)]
    homes: dict[int, set[str]] = {}
    for watcher in ("g1", "g2", "g3"):
        view = FleetView(PATIENT, watcher=watcher)
        view.see(scenario_map(*names, "d1"), 0.0)
        for name in (*names, "d1"):
            view.see(status(name, free=99, slots=99), 0.0)
        for mark in range(0, 1 << 32, 1 << 29):
            made = offer(Dispatcher(view, None, {"chat": KNOWING}), f"{watcher}{mark}", prefix=(mark,))
            assert made.route == "home"
            homes.setdefault(mark, set()).add(made.instance)
            view.withdrawn(made.instance)
            view.see(status(made.instance, free=99, slots=99), 0.0)
    assert all(len(chosen) == 1 for chosen in homes.values())
    assert len({name for chosen in homes.values() for name in chosen}) > 4


def test_a_busier_one_is_nobodys_home() -> None:
    dispatcher = dispatcher_over(FOUR, free=4, routes=KNOWING)
    home = next(dispatcher.view.candidates.ring("chat").walk(PREFIX[0], 1))
    dispatcher.handle(seen(home, 3, slots=4, group="a"), 0.0)
    assert placed(dispatcher, "a", prefix=PREFIX).instance != home


def test_without_affinity_beginnings_change_nothing() -> None:
    dispatcher = dispatcher_over(FOUR)
    assert placed(dispatcher, "a", prefix=PREFIX).route == "fewest_streams"
    assert placed(dispatcher, "b", prefix=PREFIX).route == "fewest_streams"


def test_one_that_leaves_a_ring_moves_only_the_keys_it_had() -> None:
    ring = Ring()
    for number in range(20):
        ring.add(f"p{number}")
        ring.add(f"p{number}")
    keys = range(0, 1 << 32, 1 << 22)
    before = {key: next(ring.walk(key, 1)) for key in keys}
    assert len(set(before.values())) == 20
    ring.drop("p7")
    ring.drop("p7")
    after = {key: next(ring.walk(key, 1)) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != "p7")
    assert "p7" not in after.values()
    assert len(list(ring.walk(5, 99))) == 19
    assert list(Ring().walk(5, 99)) == []


def test_a_prefill_of_another_scenario_is_no_home() -> None:
    dispatcher = dispatcher_over(FOUR, routes=KNOWING)
    dispatcher._routes.affinity.learn("chat", PREFIX, "d1")
    assert placed(dispatcher, "a", prefix=PREFIX).instance in rank(dispatcher.view, "chat", Role.PREFILL, 0.0)
