"""Whom a prefill asks for room for a buffer, in which order, and when it begins anew."""

from shared.policy.asking import FULL_ASKED, Asking
from shared.policy.placement import FleetView
from simulator.measures.lines import lines
from tests.unit.policy.builders import scenario_map, seen, status, view_of


def asked(asking: Asking, now: float = 0.0) -> list[str]:
    """All of one round."""
    names: list[str] = []
    while (name := asking.next(now)) is not None:
        names.append(name)
    return names


def test_each_decode_is_asked_once_a_round_the_idlest_first_and_the_full_last() -> None:
    view = view_of("p1", "d1", "d2", "d3", free=4)
    view.see(seen("d1", 0, slots=4).status, 0.1)
    view.see(seen("d2", 1, slots=4).status, 0.1)
    asking = Asking(view, "chat", "main")
    assert asked(asking, 0.1) == ["d3", "d2", "d1"]
    assert asking.next(0.1) is None
    asking.again()
    assert asked(asking, 0.1) == ["d3", "d2", "d1"]


def test_who_refused_a_push_comes_after_the_others_the_more_often_the_later() -> None:
    view = view_of("p1", "d1", "d2", "d3", free=4)
    asking = Asking(view, "chat", "main", last=["d2"])
    first = asking.next(0.0)
    assert first in {"d1", "d3"}
    asking.refused(first)
    asking.refused(first)
    other = next(name for name in ("d1", "d3") if name != first)
    assert asked(asking) == [other, "d2"]
    asking.again()
    assert asked(asking) == [other, "d2", first]


def test_an_asking_meets_who_came_meanwhile_and_leaves_out_who_is_gone() -> None:
    view = view_of("p1", "d1", "d2", free=4)
    asking = Asking(view, "chat", "main", last=["d2"])
    assert asking.next(0.0) == "d1"
    view.nobody_there("d2", 0.0)
    view.nobody_there("d2", 1.0)
    assert asking.next(1.0) is None


def test_a_few_of_those_believed_full_are_asked_all_the_same() -> None:
    names = [f"d{number}" for number in range(3 * FULL_ASKED)]
    view = view_of("p1", *names, free=0)
    asking = Asking(view, "chat", "main")
    assert len(asked(asking)) == FULL_ASKED
    asking.again()
    assert len(asked(asking)) == FULL_ASKED


def test_a_hand_off_costs_the_same_at_ten_thousand_decodes_of_one_group() -> None:
    costs = []
    for size in (20, 10_000):
        names = [f"d{number}" for number in range(size)]
        view = FleetView()
        view.see(scenario_map("p1", *names), 0.0)
        for name in names:
            view.see(status(name, free=4, number=1), 0.0)

        def hand_off(view: FleetView = view) -> None:
            asking = Asking(view, "chat", "main")
            for _ in range(3):
                name = asking.next(0.1)
                assert name is not None
                view.dispatched(name)
                view.rejected(name)
            name = asking.next(0.1)
            assert name is not None
            view.dispatched(name)
            view.accepted(name)
            view.settled(name)

        hand_off()
        costs.append(lines(hand_off))
    assert costs[1] <= 1.5 * costs[0] + 100
