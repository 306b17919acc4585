"""Requests through a simulated fleet: each ends once, whatever happens, and nothing of it is left anywhere."""

import gc
from dataclasses import replace

import pytest

from shared.errors import Code
from shared.policy.dispatch_events import DispatchRules
from shared.policy.routes import RouteRules
from simulator.cluster.attempt import Attempt
from simulator.cluster.clients import ClosedLoop
from simulator.cluster.simulation import Simulation
from tests.unit.simulator.cluster.fleets import PROFILE, arrivals, check_nothing_is_left, fleet, run


def test_every_request_ends_with_all_its_tokens() -> None:
    simulation, outcomes = run(fleet(), arrivals(500, 12.0))
    assert len(outcomes) == 500
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert all(one.attempts == 1 and one.prefill and one.prefilled > 0 for one in outcomes)
    check_nothing_is_left(simulation)


def test_an_idle_fleet_takes_what_the_formula_says() -> None:
    _, outcomes = run(fleet(), arrivals(20, 0.2))
    for one in outcomes:
        prompt_s = 0.01 + 1e-4 * one.arrival.input_tokens
        assert one.ttft == pytest.approx(prompt_s, abs=0.003)
        if one.tpot is not None:
            assert 0.02 < one.tpot < 0.03


def test_the_same_seed_brings_the_same_to_the_last_digit() -> None:
    first, second = (run(fleet(gateways=2), arrivals(300, 15.0, blocks=5))[1] for _ in range(2))
    assert [(one.first, one.ended, one.prefill, one.decode) for one in first] == [
        (one.first, one.ended, one.prefill, one.decode) for one in second
    ]


@pytest.mark.parametrize("role", ["p0", "d0"])
@pytest.mark.parametrize("gateways", [1, 3])
def test_no_request_is_lost_with_an_instance(role: str, gateways: int) -> None:
    def hurt(simulation: Simulation) -> None:
        simulation.clock.at(10.0, simulation.kill, f"chat-main-{role}")

    simulation, outcomes = run(fleet(3, 3, gateways=gateways), arrivals(400, 22.0), hurt)
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert any(one.attempts > 1 for one in outcomes)
    assert all(role not in one.prefill + one.decode for one in outcomes if one.arrived > 11.0)
    check_nothing_is_left(simulation)


@pytest.mark.parametrize("role", ["p0", "d0"])
def test_what_stands_still_is_left_and_may_come_back(role: str) -> None:
    def hurt(simulation: Simulation) -> None:
        simulation.clock.at(10.0, simulation.freeze, f"chat-main-{role}", 20.0)

    simulation, outcomes = run(fleet(3, 3), arrivals(900, 15.0), hurt)
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert any(role in one.prefill + one.decode for one in outcomes if one.arrived > 35.0), "it is asked again"
    check_nothing_is_left(simulation)


def test_one_that_says_that_it_stops_is_asked_no_more() -> None:
    def hurt(simulation: Simulation) -> None:
        simulation.clock.at(10.0, simulation.stop, "chat-main-d1")

    simulation, outcomes = run(fleet(), arrivals(300, 10.0), hurt)
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    check_nothing_is_left(simulation)


def test_too_many_requests_are_refused_in_time_and_the_others_are_served() -> None:
    spec = fleet(1, 1, queue_s=2.0, rules=DispatchRules(max_waiting=50))
    simulation, outcomes = run(spec, arrivals(600, 40.0))
    refused = [one for one in outcomes if not one.ok]
    assert {one.code for one in refused} == {Code.OVERLOADED}
    assert all(one.e2e < 2.1 and not one.tokens for one in refused)
    assert 0.2 < len(refused) / len(outcomes) < 0.9
    check_nothing_is_left(simulation)


def test_a_full_decode_shows_as_slots_that_are_held() -> None:
    small = replace(PROFILE, max_sequences=4)
    spec = fleet(2, 1, profile=small, prefill_slots=2)
    simulation, outcomes = run(spec, arrivals(100, 20.0))
    assert all(one.ok for one in outcomes)
    assert max(one.moved for one in outcomes) > 0.2, "buffers wait for room, in their slots"
    check_nothing_is_left(simulation)


def test_sequences_that_outgrow_the_blocks_go_on_elsewhere_with_what_they_have() -> None:
    spec = fleet(2, 2, profile=replace(PROFILE, kv_tokens=4000))
    simulation, outcomes = run(spec, arrivals(300, 9.0))
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert any(one.attempts > 1 for one in outcomes)
    check_nothing_is_left(simulation)


def test_without_prefills_decodes_compute_the_prompts() -> None:
    for alone in (False, True):
        spec = fleet(0, 3, routes=RouteRules(local_tokens=1 << 30), alone=alone, chunk=512)
        simulation, outcomes = run(spec, arrivals(200, 6.0))
        assert all(one.ok and one.tokens == one.arrival.output_tokens and not one.prefill for one in outcomes)
        check_nothing_is_left(simulation)


def test_a_shared_beginning_is_found_again_where_it_was_computed() -> None:
    hits = {}
    for affinity in (False, True):
        routes = RouteRules(affinity=affinity, slack=4)
        spec = fleet(4, 2, routes=routes, block_tokens=64, cache_blocks=200)
        _, outcomes = run(spec, arrivals(600, 10.0, blocks=20))
        hits[affinity] = sum(one.cached for one in outcomes)
    assert hits[True] > 1.2 * hits[False] > 0


def test_a_closed_loop_keeps_so_many_requests_open() -> None:
    simulation = Simulation(fleet(), lambda _: None)
    ClosedLoop(simulation, arrivals(100, 1.0), 7)
    seen = []
    for moment in range(20, 80):
        simulation.clock.at(moment / 10, lambda: seen.append(simulation.open))
    simulation.run()
    assert simulation.open == 0
    assert max(seen) == 7
    assert seen.count(7) > 30


def test_attempts_are_gone_without_a_garbage_collector() -> None:
    def hurt(simulation: Simulation) -> None:
        simulation.clock.at(5.0, simulation.kill, "chat-main-d0")
        simulation.clock.at(5.0, simulation.kill, "chat-main-p0")

    gc.collect()
    gc.disable()
    try:
        spec = fleet(3, 2, profile=replace(PROFILE, kv_tokens=4000), queue_s=1.0, routes=RouteRules(local_tokens=400))
        simulation, outcomes = run(spec, arrivals(300, 20.0), hurt)
        check_nothing_is_left(simulation)
        assert {one.ok for one in outcomes} == {True, False}
        assert not [one for one in gc.get_objects() if type(one) is Attempt]
    finally:
        gc.enable()
