"""Builds what the page shows from the report, the figures and the rates. Pure.

Parts are compared and only those that changed are sent, so numbers are rounded to what a person can see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.monitor.dashboard.figures import Advice, Figures
from services.monitor.dashboard.parts import (
    AdvicePart,
    FleetPart,
    GroupPart,
    InstancePart,
    LinkPart,
    ScenarioPart,
    Snapshot,
    TimesPart,
    TrafficPart,
)
from services.monitor.dashboard.rates import Rates, Served, Times
from shared.config import ScenarioSettings
from shared.messages import FRACTIONS, GroupPhase, Role, State
from shared.report import GroupEntry, InstanceEntry, Report, ScenarioEntry

WORKERS = (Role.PREFILL, Role.DECODE)
OUTSIDE = (State.STARTING, State.DRAINING)
"""A worker that the map does not name is shown at its group while it is so."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known at this look."""

    figures: Figures
    rates: Rates
    by_id: Mapping[str, InstanceEntry]
    passing: Mapping[tuple[str, str], list[InstanceEntry]]  # those that start or drain, by scenario and group


def snapshot(
    report: Report, figures: Figures, rates: Rates, monitor: str, *, leading: bool, orders: bool = False
) -> Snapshot:
    """Build all parts. `rates` has seen the figures."""
    shown: set[str] = set()
    parts: Snapshot = {}
    passing: dict[tuple[str, str], list[InstanceEntry]] = {}
    for one in report["instances"]:
        if one["state"] in OUTSIDE:
            passing.setdefault((one["scenario"], one["group"]), []).append(one)
    seen = _Seen(figures, rates, {one["id"]: one for one in report["instances"]}, passing)
    for scenario in report["scenarios"]:
        groups = [_group(scenario["name"], group, seen) for group in scenario["groups"]]
        for group in groups:
            shown.update(one["id"] for one in (*group["prefill"], *group["decode"]))
            parts[f"group {scenario['name']} {group['name']}"] = group
        parts[f"scenario {scenario['name']}"] = _scenario(scenario, groups, seen)
    rest = [one for one in report["instances"] if one["id"] not in shown]

    def of(*roles: Role) -> list[InstancePart]:
        return [_instance(one, "outside", seen) for one in rest if one["role"] in roles]

    parts["fleet"] = FleetPart(
        monitor=monitor,
        leading=leading,
        orders=orders,
        ready=sum(1 for one in report["instances"] if one["state"] == State.READY),
        total=len(report["instances"]),
        scenarios=[one["name"] for one in report["scenarios"]],
        standby=of(Role.STANDBY),
        gateways=of(Role.GATEWAY),
        monitors=of(Role.MONITOR),
        astray=of(*WORKERS),
    )
    return parts


def _group(scenario: str, group: GroupEntry, seen: _Seen) -> GroupPart:
    named = {*group["prefill"], *group["decode"]}
    outside = [one for one in seen.passing.get((scenario, group["name"]), []) if one["id"] not in named]

    def members(role: Role, names: Iterable[str]) -> list[InstancePart]:
        placed = [
            _instance(
                seen.by_id.get(name) or _unseen(name, role), "joining" if name in group["joining"] else "member", seen
            )
            for name in sorted(names)
        ]
        return placed + [_instance(one, "outside", seen) for one in outside if one["role"] == role]

    links = [link for name in sorted(group["prefill"]) for link in _links(name, set(group["decode"]), seen)]
    return {
        "scenario": scenario,
        "name": group["name"],
        "phase": group["phase"],
        "strategy": group["strategy"],
        "canary": group["canary"],
        "revision": group["revision"],
        "prefills": group["prefills"],
        "decodes": group["decodes"],
        "prefill": members(Role.PREFILL, group["prefill"]),
        "decode": members(Role.DECODE, group["decode"]),
        "links": links,
        "bytes_per_s": sum(link["bytes_per_s"] for link in links),
    }


def _links(prefill: str, decodes: set[str], seen: _Seen) -> list[LinkPart]:
    said = seen.figures.links.get(prefill)
    found: list[LinkPart] = []
    for link in said.links if said is not None else []:
        if link.decode in decodes:
            flow = seen.rates.flow(prefill, link.decode)
            found.append(
                {
                    "prefill": prefill,
                    "decode": link.decode,
                    "verified": link.verified,
                    "problem": link.problem,
                    "bytes_per_s": int(_round(flow.bytes_per_s)),
                    "push_ms": _round(flow.push_ms),
                }
            )
    return found


def _scenario(scenario: ScenarioEntry, groups: list[GroupPart], seen: _Seen) -> ScenarioPart:
    name = scenario["name"]
    settings = seen.figures.scenarios.get(name) or ScenarioSettings(model="")
    served = seen.rates.served(name)
    models = {one["number"]: one["model"] for one in scenario["revisions"]}
    staying = [group for group in groups if group["phase"] != GroupPhase.CLOSING]
    ended = served.finished + served.failed + served.refused
    return {
        "name": name,
        "model": models.get(scenario["target"], "") or settings.model,
        "engine": settings.engine if settings.model else "",
        "version": scenario["version"],
        "target": scenario["target"],
        "revisions": [{"number": number, "model": model or settings.model} for number, model in models.items()],
        "groups": [group["name"] for group in groups],
        "prefill": _working(groups, "prefill"),
        "decode": _working(groups, "decode"),
        "per_group": [staying[0]["prefills"], staying[0]["decodes"]] if staying else [0, 0],
        **_traffic(served),
        "success": round(served.finished / ended, 4) if ended else 1.0,
        "ttft": _times(served.ttft, settings.ttft_slo_ms),
        "tpot": _times(served.tpot, settings.tpot_slo_ms),
        "advice": _advice(seen.figures.steering.get(name)),
    }


def _traffic(served: Served) -> TrafficPart:
    return {
        "known": served.known,
        "arriving_per_s": _round(served.arriving_per_s),
        "finished_per_s": _round(served.finished_per_s),
        "tokens_per_s": _round(served.tokens_per_s),
        "waiting": served.waiting,
        "open": served.open,
        "finished": served.finished,
        "failed": served.failed,
        "refused": served.refused,
    }


def _working(groups: list[GroupPart], role: str) -> int:
    rows = [group["prefill"] if role == Role.PREFILL else group["decode"] for group in groups]
    return sum(1 for row in rows for one in row if one["place"] == "member")


def _times(measured: Times, slo_ms: int) -> TimesPart:
    return {
        "slo_ms": slo_ms,
        "count": measured.count,
        "within": round(measured.within, 4),
        "p50_ms": _round(measured.p50 * slo_ms),
        "p99_ms": _round(measured.p99 * slo_ms),
        "over": measured.p99 >= FRACTIONS[-1],
    }


def _advice(advice: Advice | None) -> AdvicePart | None:
    if advice is None:
        return None
    return {
        "mode": advice.mode,
        "prefill": advice.prefill,
        "decode": advice.decode,
        "groups": advice.groups,
        "scarcer": advice.scarcer,
        "prefill_per_s": _round(advice.prefill_per_s),
        "decode_per_s": _round(advice.decode_per_s),
        "phi": _round(advice.phi),
        "prefill_s": _round(advice.prefill_s),
        "decode_s": _round(advice.decode_s),
        "upgrade": advice.upgrade,
        "reasons": list(advice.reasons),
    }


def _instance(one: InstanceEntry, place: str, seen: _Seen) -> InstancePart:
    status = seen.figures.statuses.get(one["id"])
    pace = seen.rates.pace(one["id"])
    return {
        "id": one["id"],
        "role": one["role"],
        "state": one["state"],
        "health": one["health"],
        "place": place,
        "reason": one["reason"],
        "revision": one["revision"],
        "epoch": ".".join(map(str, one["epoch"])),
        "pid": one["pid"],
        "host": one["host"],
        "slots": one["slots"],
        "used": one["load"],
        "waiting": round(pace.waiting, 1),
        "busy": round(pace.busy, 2),
        "tokens_per_s": _round(pace.tokens_per_s),
        "passed_per_s": _round(pace.passed_per_s),
        "kv_free": status.kv_free_bytes if status is not None else 0,
        "kv_room": seen.rates.room(one["id"]),
    }


def _unseen(name: str, role: Role) -> InstanceEntry:
    """Stand for a member of the map of which nothing was heard or read."""
    return {
        "id": name,
        "role": role.value,
        "scenario": "",
        "group": "",
        "state": "unknown",
        "epoch": [],
        "pid": 0,
        "host": "",
        "slots": 0,
        "load": 0,
        "health_url": "",
        "reason": "the map names it, and nothing was heard of it",
        "health": "ok",
        "revision": 0,
    }


def _round(value: float) -> float:
    """Keep three digits that count."""
    return float(f"{value:.3g}")
