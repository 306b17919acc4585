"""What is simulated unless something else is said is what an operator gets who says nothing."""

from services.decode.worker import WAITING
from services.gateway.service import _dispatch_rules, _route_rules
from shared.config import Config, ScenarioSettings
from shared.policy.dispatch_events import DispatchRules
from simulator.cluster.spec import FleetSpec, ScenarioSpec


def test_the_settings_are_those_of_the_product() -> None:
    config = Config(scenario={"chat": ScenarioSettings(model="test")})
    scenario, fleet = config.scenarios["chat"], config.fleet
    spec, ours = FleetSpec(()), ScenarioSpec("chat", ())
    assert (spec.heartbeat_s, spec.misses) == (fleet.heartbeat_s, fleet.heartbeat_misses)
    assert (spec.offer_timeout_s, spec.progress_s, spec.push_timeout_s) == (
        fleet.offer_timeout_s,
        fleet.progress_s,
        fleet.push_timeout_s,
    )
    assert spec.decode_waiting == WAITING
    assert ours.prefill_slots == scenario.prefill_slots
    assert (ours.ttft_s, ours.tpot_s) == (scenario.ttft_slo_ms / 1000, scenario.tpot_slo_ms / 1000)
    assert (ours.queue_s, ours.timeout_s) == (scenario.queue_timeout_s, scenario.request_timeout_s)
    assert _dispatch_rules(config).attempts == DispatchRules().attempts
    assert ours.first_token_s == 2 * ours.queue_s
    assert _route_rules(config)["chat"].local_tokens == ours.routes.local_tokens
