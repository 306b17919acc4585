"""A month of failures: one substitute for whoever is lost, against a restart of the whole group, and against waiting.

(a) Baton: the real `Fleet` decider with standbys; nobody else restarts. (b) The group of whoever is lost is torn down
and loads anew, with the same standbys (`baselines/group_restart.py`). (c) Baton without a standby: the group serves on
with who is left, until the lost one is repaired.

Instances of 8 devices; deaths 1.5 a week per 400 devices (P/D-Serve, after BLOOM), repaired within four hours on
average. Per instance and week also 0.03 standstills of a minute and 0.03 slowdowns to a third for ten minutes, as many
as deaths: no source says how many there are. Groups of 4:6, one a scenario, offered 85 % of what they can do at any
hour. A month of single requests is too many, so goodput is a fluid (`fluid.py`), under everything that decides, loads
and dies as in any simulation. Heartbeats would be most of its events, so there are none: losses are noticed by the
lease (3 s, and 2 s of grace). Gateways, which nobody asks, are left out. `around` checks the fluid against every single
request around a fault. Where a model loads for longer than the product's `ready_s`, ten minutes, its decider takes
every substitute for lost before it is ready; that limit is twice the loading time here.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from shared.policy.fleet.events import FleetRules
from simulator.baselines.group_restart import GroupRestart
from simulator.cluster.hurting import Hurting, Keeper
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile
from simulator.engine.roofline import DEVICES, SHAPES, calculated
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.fluid import Fluid
from simulator.faults.processes import FaultSpec, faults
from simulator.measures.outcome import Outcome

NAME: Final = "month"
TITLE: Final = "A month of failures: goodput lost"
MONTH_S: Final = 30 * 86_400.0
DEVICES_EACH: Final = 8
SHAPE: Final = (4, 6)
"""Prefills and decodes of a group."""
DEMAND: Final = 0.85
LOADS: Final = (60.0, 300.0, 900.0)
USUAL_LOAD: Final = 300.0
FAULTS: Final = FaultSpec(
    devices=DEVICES_EACH, deaths=1.5, repair_s=4 * 3600.0, freezes=0.03, freeze_s=60.0, slowdowns=0.03
)
NEVER_S: Final = 1e9
"""Between two heartbeats."""
NOTICED_S: Final = 5.5
"""From a fault to its being noticed by the lease: what (a) takes, given to (b)."""
SYSTEMS: Final = {"a": "one substitute", "b": "group restart", "c": "no standby"}
MILLION: Final = 1e6
HEAD: Final = ("instances", "group", "standbys", "load, s", "deaths", *(f"{k}, ppm lost" for k in SYSTEMS), "b / a")


@dataclass(frozen=True, slots=True)
class Case:
    """One row."""

    instances: int
    standbys: int
    load_s: float = USUAL_LOAD
    shape: tuple[int, int] = SHAPE


MANY: Final = 1000
CASES: Final = (
    *(Case(MANY, 5, load_s) for load_s in LOADS),
    *(Case(MANY, 5, shape=shape) for shape in ((2, 3), (8, 12))),
    *(Case(MANY, standbys) for standbys in (0, 1)),
    Case(50, 1),
    Case(10_000, 25),
)


def run(seed: int) -> Findings:
    """Every case under every system."""
    found = {case: {system: month(case, system, seed) for system in SYSTEMS} for case in CASES}
    rows = tuple(_row(case, lost) for case, lost in found.items())
    return Findings(Table(HEAD, rows), {"": _chart(found)}, _says(found))


def _row(case: Case, lost: dict[str, "Lost"]) -> tuple[Cell, ...]:
    shares = [MILLION * one.lost for one in lost.values()]
    times = shares[1] / shares[0] if shares[0] else "-"
    return (
        case.instances,
        f"{case.shape[0]}:{case.shape[1]}",
        case.standbys,
        case.load_s,
        lost["a"].deaths,
        *shares,
        times,
    )


def _says(found: dict[Case, dict[str, "Lost"]]) -> str:
    usual, large = found[Case(MANY, 5)], found[CASES[-1]]
    parts = [f"{SYSTEMS[system]} {MILLION * one.lost:.0f}" for system, one in usual.items()]
    return (
        f"Lost of a month's offer, in millionths, with {MANY} instances and a model that loads for "
        f"{USUAL_LOAD / 60:.0f} minutes: {', '.join(parts)}. With 10,000 instances {large['a'].deaths} died, and one "
        f"substitute lost {MILLION * large['a'].lost:.0f}, a group restart {MILLION * large['b'].lost:.0f}. "
        "A restart takes the whole group away for as long as the model loads, at every standstill too, and more the "
        "larger groups are; with a substitute a larger group feels less, or nothing. Without a standby the time of "
        "repair counts, four hours here, and the time of loading hardly. Slowdowns, which nobody notices, are in all."
    )


# ---- a month


@dataclass(frozen=True, slots=True)
class Lost:
    """Of one run."""

    lost: float  # share of the offer
    deaths: int


def month(case: Case, system: str, seed: int) -> Lost:
    """One system through one month. All systems of a case meet the same faults."""
    simulation = Simulation(spec(case, NEVER_S, 0), _nobody)
    fluid = Fluid(simulation, DEMAND)
    keeper = kept(simulation, system, case)
    names = [*simulation.workers, *(f"s{number}" for number in range(case.standbys))]
    if system == "c":
        names = names[: len(simulation.workers)]
    hurting = Hurting(simulation, keeper, faults(FAULTS, names, seed), fluid.touch)
    simulation.run(MONTH_S)
    return Lost(fluid.share(), hurting.deaths)


def kept(simulation: Simulation, system: str, case: Case) -> Keeper:
    """The system that keeps the fleet."""
    if system == "b":
        return GroupRestart(simulation, case.standbys, detect_s=NOTICED_S)
    beats = simulation.spec.heartbeat_s
    rules = FleetRules(settle_s=30.0, ready_s=max(600.0, 2 * case.load_s))
    if beats >= NEVER_S:
        rules = replace(rules, starting_silence_s=NEVER_S)
    standbys = 0 if system == "c" else case.standbys
    return Monitor(simulation, MonitorSpec(rules, standbys=standbys, host_answers=False))


def spec(case: Case, heartbeat_s: float, gateways: int) -> FleetSpec:
    """One group a scenario."""
    prefill, decode = case.shape
    count = case.instances // (prefill + decode)
    profile = replace(instance(), load_s=case.load_s)
    group = GroupSpec("main", prefill, decode, profile)
    scenarios = (ScenarioSpec(f"s{number}", (group,)) for number in range(count))
    return FleetSpec(tuple(scenarios), gateways=gateways, heartbeat_s=heartbeat_s)


def instance() -> Profile:
    """A large model on one node."""
    return calculated(SHAPES["llama-70b"], DEVICES["h200"], DEVICES_EACH)


def _nobody(outcome: Outcome) -> None:
    raise AssertionError(f"nobody asked for {outcome}")


def _chart(found: dict[Case, dict[str, Lost]]) -> dict[str, Any]:
    return {
        "title": "One substitute, or the whole group",
        "subtitle": f"{MANY} instances of {DEVICES_EACH} devices, a month, groups of {SHAPE[0]}:{SHAPE[1]} at 85 %",
        "x": {"label": "the model loads for, minutes"},
        "y": {"label": "goodput lost, ppm", "log": True},
        "lines": [
            {
                "name": name,
                "points": [[load_s / 60, MILLION * found[Case(MANY, 5, load_s)][system].lost] for load_s in LOADS],
            }
            for system, name in SYSTEMS.items()
        ],
    }
