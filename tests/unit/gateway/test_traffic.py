"""What a gateway counts of its requests, and how it ranks strategies by them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.gateway.relay.record import Record
from services.gateway.strategies import Strategies
from services.gateway.traffic import MOST_GROUPS, TrafficBook
from shared.config import ScenarioSettings
from shared.config.scenario import GroupSettings
from shared.messages import BUCKETS, Finish, Finished, GroupTraffic, Sampling, Stopping, Traffic
from shared.policy.dispatch import Dispatcher
from shared.policy.routes import RouteRules
from tests.unit.policy.parted import group, view_over

CHAT = cast(Any, SimpleNamespace(name="chat", ttft_s=1.0, tpot_s=0.1))


def record(group: str = "a", tokens: int = 10, **fields: Any) -> Record:
    sink = cast(Any, SimpleNamespace(text=lambda *_: None))
    made = Record("r", bytes(4 * tokens), Sampling(), Stopping(max_tokens=99), 0, 0, sink, sink.text)
    made.group = group
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def finished(tokens: int) -> Finished:
    return Finished(1, 0, Finish.STOP, tokens, 10)


def told(book: TrafficBook, *listed: str) -> Traffic:
    (message,) = book.messages("g", (1, 1), waiting=lambda _: 3, open_now=lambda _: 5, listed=lambda _: listed)
    return message


def served(message: Traffic, name: str = "a") -> GroupTraffic:
    return next(group for group in message.groups if group.group == name)


def buckets(*filled: int) -> list[int]:
    return [filled.count(place) for place in range(BUCKETS)]


def test_one_requests_way_is_told_in_full() -> None:
    book = TrafficBook([CHAT])
    traffic, one = book.of("chat"), record()
    traffic.arrive(one)
    traffic.take(one, 100.25)
    traffic.first_token(one, 100.0, 100.75)
    traffic.finish(one, finished(11), 101.75)  # 0.1 s a token
    message = told(book, "a")
    assert (message.arrived, message.prompt_tokens, message.waiting, message.open) == (1, 10, 3, 5)
    us = 1_000_000
    assert served(message) == GroupTraffic(
        "a", 1, 0, buckets(3), buckets(4), int(0.75 * us), int(1.5 * us), int(0.5 * us), 11
    )


def test_numbers_grow_and_counts_are_since_the_start() -> None:
    book = TrafficBook([CHAT])
    for turn in range(1, 4):
        book.of("chat").arrive(record())
        message = told(book)
        assert (message.number, message.arrived) == (turn, turn)


def test_times_beyond_all_bounds_have_a_bucket() -> None:
    book = TrafficBook([CHAT])
    traffic, one = book.of("chat"), record()
    traffic.first_token(one, 0.0, 100.0)
    assert served(told(book)).ttft == buckets(BUCKETS - 1)


def test_a_replay_counts_its_first_token_once_and_its_own_prefill() -> None:
    book = TrafficBook([CHAT])
    traffic, one = book.of("chat"), record()
    traffic.take(one, 100.0)
    traffic.first_token(one, 100.0, 100.5)
    traffic.fail(one)
    one.begin(1, "g")
    one.group = "b"
    traffic.take(one, 102.0)
    traffic.first_token(one, 100.0, 103.0)
    traffic.finish(one, finished(6), 105.5)
    message = told(book)
    assert served(message, "a") == GroupTraffic("a", 0, 1, buckets(2), buckets(), 500_000)
    assert served(message, "b") == GroupTraffic("b", 1, 0, buckets(), buckets(8), 0, 3_500_000, 1_000_000, 6)


def test_an_acceptance_that_its_first_token_overtook_changes_nothing() -> None:
    book = TrafficBook([CHAT])
    traffic, one = book.of("chat"), record()
    traffic.first_token(one, 100.0, 100.5)
    traffic.take(one, 100.6)
    traffic.finish(one, finished(1), 100.5)
    assert served(told(book)).prefill_us == 0
    assert served(told(book)).e2e_us == 0


def test_a_stream_of_another_gateway_has_no_first_token_here() -> None:
    book = TrafficBook([CHAT])
    traffic, one = book.of("chat"), record(before=999, resumed=4)
    traffic.first_token(one, 100.0, 100.5)
    traffic.finish(one, finished(6), 100.6)
    message = served(told(book))
    assert (message.ttft, message.tokens) == (buckets(), 2)


@pytest.mark.parametrize("taken", [True, False])
def test_only_what_no_worker_had_is_refused(*, taken: bool) -> None:
    book = TrafficBook([CHAT])
    one = record(taken=taken)
    book.of("chat").refuse(one)
    assert told(book).refused == (0 if taken else 1)


def test_an_attempt_that_nobody_accepted_is_nobodys_failure() -> None:
    book = TrafficBook([CHAT])
    book.of("chat").fail(record())
    assert told(book).groups == []


def test_groups_that_are_gone_are_forgotten_when_there_are_too_many() -> None:
    book = TrafficBook([CHAT])
    for number in range(MOST_GROUPS + 50):
        book.of("chat").finish(record(f"g{number}"), finished(1), 1.0)
    message = told(book, "g0", "g5")
    assert len(message.groups) == MOST_GROUPS
    assert {"g0", "g5", f"g{MOST_GROUPS + 49}"} <= {group.group for group in message.groups}


# ---- strategies


def test_the_strategy_that_is_faster_at_this_concurrency_is_asked_first() -> None:
    view = view_over(group("a", "p1", "d1", strategy="tp4"), group("b", "p2", "d2", strategy="tp8"), free=2)
    dispatcher = Dispatcher(view, None, {"chat": RouteRules()})
    said: list[tuple[str, ...]] = []
    dispatcher.prefer = lambda _, strategies: said.append(strategies)  # type: ignore[method-assign]
    groups = {name: GroupSettings(strategy=strategy) for name, strategy in (("a", "tp4"), ("b", "tp8"))}
    strategies = Strategies({"chat": ScenarioSettings("sim", group=groups)}, view, dispatcher)
    slow, fast = record("a", begun_at=1.0), record("b", begun_at=1.0)
    for turn in range(30):
        slow.expected, fast.expected = 10 * turn, 40 * turn
        strategies.look([("chat", slow), ("chat", fast), ("other", record())], float(turn))
    assert said[-1] == ("tp8", "tp4")


def test_a_scenario_without_strategies_costs_nothing() -> None:
    view = view_over(group("a", "p1", "d1"))
    strategies = Strategies({"chat": ScenarioSettings("sim")}, view, Dispatcher(view))

    class Unread:
        def __iter__(self) -> Any:
            raise AssertionError("nobody need be looked at")

    strategies.look(Unread(), 0.0)
