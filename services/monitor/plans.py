"""What the configuration asks for, in the deciders' words: the first plan, the rules of fleet and controllers."""

from dataclasses import asdict
from typing import Final

from shared.config import Config, ScenarioSettings
from shared.config.groups import configured_groups
from shared.errors import ConfigError
from shared.policy.fleet.events import FleetRules
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.rules import RatioRules, ScaleRules, SteeringRules
from shared.policy.steering.steering import Steering

SETTLE_S: Final = 30.0
"""For those who are to work here to show up, before a standby is sent into a place where nobody was ever seen. A cold
container took 17 s to its first word; a place that somebody was seen to leave is filled at once."""


def configured_plan(scenario: str, settings: ScenarioSettings) -> Plan:
    """Return a scenario's groups as configured, at revision 0."""
    groups = configured_groups(settings)
    return Plan(scenario, tuple(GroupPlan(one.name, one.prefill, one.decode, strategy=one.strategy) for one in groups))


def fleet_rules(config: Config) -> FleetRules:
    """Return the times and bounds of the fleet's decider."""
    fleet, monitor = config.fleet, config.monitor
    provided = monitor.provisioner != "none"
    return FleetRules(
        heartbeat_s=fleet.heartbeat_s,
        misses=fleet.heartbeat_misses,
        settle_s=SETTLE_S,
        drain_s=fleet.drain_s,
        ready_s=fleet.ready_s,
        provide=provided,
        standbys=monitor.standbys if provided else 0,
        release=provided and any(one.scale.surplus == "release" for one in config.scenarios.values()),
    )


def steering_of(scenario: str, settings: ScenarioSettings) -> Steering:
    """Make a scenario's controllers. Raises ConfigError where its time table or time zone cannot be read."""
    ratio, scale = asdict(settings.ratio), asdict(settings.scale)
    del scale["surplus"]
    rules = SteeringRules(
        scenario,
        prefill=settings.prefill,
        decode=settings.decode,
        groups=settings.groups,
        named=frozenset(settings.group),
        ratio=RatioRules(**ratio),
        scale=ScaleRules(**scale),
    )
    try:
        return Steering(rules)
    except ValueError as error:
        raise ConfigError([f"scenario.{scenario}.scale: {error}"]) from error
