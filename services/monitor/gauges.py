"""Metrics of the maps and of the steering. Labels come from the map and the configuration; what is gone is removed."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.messages import GroupPhase, Role, ScenarioMap
from shared.policy.steering.figures import GroupFigures, ScenarioFigures

Labels = tuple[str, ...]


class Family:
    """One gauge whose children come and go; those that are not set anew vanish."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._known: dict[str, set[Labels]] = {}  # by scenario

    def show(self, scenario: str, values: Mapping[Any, float]) -> None:
        """Show these values of a scenario by their labels, and no others."""
        for labels in self._known.get(scenario, set()) - set(values):
            self._gauge.remove(*labels)
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        self._known[scenario] = set(values)


class MapGauges:
    """Shows the map that was published last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_role = ["scenario", "group", "role"]
        self._version = Gauge("baton_map_version", "Version of the map announced last", ["scenario"], registry=registry)
        self._members = Family(Gauge("baton_map_members", "Members in the map", by_role, registry=registry))
        self._joined = Family(Gauge("baton_map_joined", "Members that requests go to", by_role, registry=registry))
        self._wanted = Family(Gauge("baton_map_wanted", "Members wanted", by_role, registry=registry))
        self._open = Family(
            Gauge("baton_map_group_open", "1 where requests go to the group", ["scenario", "group"], registry=registry)
        )
        self._revision = Family(
            Gauge("baton_map_revision", "Of the model that the group runs", ["scenario", "group"], registry=registry)
        )
        self._target = Gauge("baton_map_target", "Revision that all groups are to run", ["scenario"], registry=registry)

    def show(self, scenario_map: ScenarioMap) -> None:
        """Show one scenario's map."""
        name = scenario_map.scenario
        members: dict[Labels, float] = {}
        joined: dict[Labels, float] = {}
        wanted: dict[Labels, float] = {}
        for group in scenario_map.groups:
            for role, those, count in (
                (Role.PREFILL, group.prefill, group.prefills),
                (Role.DECODE, group.decode, group.decodes),
            ):
                labels = (name, group.name, role.value)
                members[labels] = len(those)
                joined[labels] = sum(member.joined for member in those)
                wanted[labels] = count
        self._version.labels(name).set(scenario_map.version)
        self._members.show(name, members)
        self._joined.show(name, joined)
        self._wanted.show(name, wanted)
        opened = {(name, group.name): float(group.phase is GroupPhase.OPEN) for group in scenario_map.groups}
        self._open.show(name, opened)
        self._revision.show(name, {(name, group.name): group.revision for group in scenario_map.groups})
        self._target.labels(name).set(scenario_map.target)


class SteeringGauges:
    """Shows what the controllers measure, in the terms of P/D-Serve 1.2, and counts what they decide."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_role, by_group = ["scenario", "group", "role"], ["scenario", "group"]
        self._capable = Family(
            Gauge("baton_steering_capable", "Requests/s that a role can do, n*b/T", by_role, registry=registry)
        )
        self._use = Family(Gauge("baton_steering_use", "Share of that in use", by_role, registry=registry))
        self._seconds = Family(
            Gauge("baton_steering_seconds", "T_p, xi and T_d", ["scenario", "group", "time"], registry=registry)
        )
        self._rate = Family(Gauge("baton_steering_rate", "Requests/s that pass", by_group, registry=registry))
        self._share = Family(Gauge("baton_steering_prefill_share", "T_p / E2E", by_group, registry=registry))
        self._met = Family(
            Gauge(
                "baton_steering_slo_met", "Share within the objective", ["scenario", "group", "slo"], registry=registry
            )
        )
        self._failed = Family(
            Gauge("baton_steering_failed", "Share of attempts that failed", by_group, registry=registry)
        )
        self._arriving = Gauge("baton_steering_arriving", "Requests/s that come, I_t", ["scenario"], registry=registry)
        self._phi = Gauge("baton_steering_phi", "Throughput per instance", ["scenario"], registry=registry)
        self._decisions = Counter(
            "baton_steering_decisions", "What controllers decided", ["scenario", "kind"], registry=registry
        )
        self._failures = Counter(
            "baton_steering_failures", "Times the controllers failed", ["scenario"], registry=registry
        )

    def show(self, scenario: str, groups: Mapping[str, GroupFigures], totals: ScenarioFigures) -> None:
        """Show the figures of one scenario."""
        both = [((scenario, name), one) for name, one in groups.items()]
        self._capable.show(scenario, _by_role({key: (one.capable_p, one.capable_d) for key, one in both}))
        self._use.show(scenario, _by_role({key: (one.use_p, one.use_d) for key, one in both}))
        times = {
            (*key, name): value
            for key, one in both
            for name, value in (("prefill", one.t_p), ("handoff", one.xi), ("decode", one.t_d))
        }
        self._seconds.show(scenario, times)
        self._rate.show(scenario, {key: one.rate for key, one in both})
        self._share.show(scenario, {key: one.share for key, one in both})
        self._failed.show(scenario, {key: one.failed for key, one in both})
        met = {
            (*key, name): value for key, one in both for name, value in (("ttft", one.ttft_met), ("tpot", one.tpot_met))
        }
        self._met.show(scenario, met)
        self._arriving.labels(scenario).set(totals.arriving)
        self._phi.labels(scenario).set(totals.phi)

    def decided(self, scenario: str, kind: str) -> None:
        """Count a decision."""
        self._decisions.labels(scenario, kind).inc()

    def failed(self, scenario: str) -> None:
        """Count a failure of the controllers."""
        self._failures.labels(scenario).inc()


def _by_role(values: Mapping[Labels, tuple[float, float]]) -> dict[Labels, float]:
    roles = (Role.PREFILL.value, Role.DECODE.value)
    return {(*key, role): value for key, pair in values.items() for role, value in zip(roles, pair, strict=True)}
