"""P/D-Serve's tide: whole groups come and go with the traffic, by the clock and by the load, against fixed fleets.

A day from night to peak and back, 1:5, as a cosine with its peak at 15:00; the paper's curve has no units. Everything
runs in real time but the day, which passes in an hour: 24 times as fast, so the controllers, the provisioner (10 s) and
the loading of the model (40 s) have to follow a tide 24 times as steep as a real one. Of the product's settings two are
others: `scale.down_s` is 60 s, not 300, which would be two hours of such a day, and heartbeats come each 2 s, to spare
events. Groups are 1:2 of a 70B model on nodes of 8 devices, prompts of 24,000 tokens on average; the answer is as long
as makes two decodes capable of what one prefill is. The time table is what an operator would write who knows the tide:
an hour's groups are enough for it, at 70 % use, and for the 20 minutes after it, since what comes has to load first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from random import Random
from typing import Any, Final

from shared.messages import GroupPhase
from shared.policy.fleet.events import FleetRules
from shared.policy.steering.rules import RatioRules, ScaleRules, SteeringRules
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.loads import lengths
from simulator.experiments.month import instance
from simulator.measures.tally import Objectives, Tally
from simulator.workload.arrival import Arrival
from simulator.workload.tides import sinus, tide

NAME: Final = "fig14b"
TITLE: Final = "Tide: groups that follow the traffic, against fixed fleets"
DAY_S: Final = 3600.0
HOUR_S: Final = DAY_S / 24
FASTER: Final = 24.0
SHAPE: Final = (1, 2)
PROMPT: Final = 24_000
BATCH: Final = 8
LOAD_S: Final = 40.0
PROVIDE_S: Final = 10.0
DOWN_S: Final = 60.0
TTFT_S: Final = 10.0
BEAT_S: Final = 2.0
NIGHT, PEAK = 0.7, 3.5
"""Groups' worth of requests."""
TARGET: Final = 0.7
MOST: Final = 6
SAMPLE_S: Final = 15.0
EPSILON: Final = 1e-9
HEAD: Final = ("fleet", "instance-hours", "of the peak's, %", "in time, %", "refused", "requests", "changes")
PERCENT: Final = 100.0


@cache
def profile() -> Profile:
    """Of an instance."""
    return replace(instance(), max_sequences=BATCH, load_s=LOAD_S)


@cache
def prefill_s() -> float:
    """Seconds of a mean prompt."""
    return profile().timing.prefill_s(PROMPT, 0)


@cache
def answer() -> int:
    """Tokens of a mean answer with which both roles are capable of as much."""
    (prefill, decode), tokens = SHAPE, 1
    wanted = prefill / prefill_s() / decode
    while BATCH / (tokens * profile().timing.step_s(BATCH, BATCH * (PROMPT + tokens / 2))) > wanted:
        tokens += 1
    return tokens


def needed(hour: float) -> float:
    """Groups' worth of requests at that hour."""
    return sinus(NIGHT, PEAK)(hour * 3600.0)


def timetable() -> tuple[str, ...]:
    """An hour's line each."""
    lines = []
    for hour in range(24):
        most = max(needed(hour + minute / 60) for minute in range(0, 81, 5))
        lines.append(f"0 {hour} * * * = {ceil(most / TARGET - EPSILON)}")
    return tuple(lines)


def arrivals(seed: int) -> Iterator[Arrival]:
    """A day of requests."""
    rng, whole = Random(f"tide {seed}"), SHAPE[0] / prefill_s()
    for at in tide(lambda at: whole * needed(at / HOUR_S), whole * PEAK, DAY_S, seed=seed):
        yield Arrival(at, lengths(rng, PROMPT), lengths(rng, answer()))


@dataclass(slots=True)
class Day:
    """What one fleet did."""

    hours: float = 0.0
    tally: Tally = field(default_factory=lambda: Tally(Objectives(ttft=TTFT_S)))
    groups: list[list[float]] = field(default_factory=list)  # hour, open groups
    changes: int = 0


def day(begin: int, scale: ScaleRules, seed: int) -> Day:
    """A fleet through the day."""
    found = Day()
    groups = tuple(
        GroupSpec("main" if not number else f"main-{number + 1}", *SHAPE, profile()) for number in range(begin)
    )
    scenario = ScenarioSpec("chat", groups, prefill_slots=2, ttft_s=TTFT_S)
    simulation = Simulation(FleetSpec((scenario,), heartbeat_s=BEAT_S), found.tally)
    steering = SteeringRules("chat", *SHAPE, groups=begin, ratio=RatioRules(mode="fixed"), scale=scale)
    rules = FleetRules(settle_s=30.0, release=True)
    spec = MonitorSpec(rules, (steering,), provide_s=PROVIDE_S, most=MOST * sum(SHAPE), unix=0.0, days_faster=FASTER)
    monitor = Monitor(simulation, spec)

    def sample() -> None:
        opened = [one for one in simulation.map("chat").groups if one.phase is GroupPhase.OPEN]
        found.groups.append([simulation.clock.now / HOUR_S, float(len(opened))])
        simulation.clock.after(SAMPLE_S, sample)

    simulation.clock.after(0.0, sample)
    simulation.feed(arrivals(seed))
    simulation.run(DAY_S)
    found.hours = monitor.hands.instance_s / HOUR_S
    found.changes = len([reason for _, _, reason in monitor.told if reason.text.startswith("from ")])
    simulation.run()
    return found


def run(seed: int) -> Findings:
    """Four fleets through one day."""
    mean = round(sum(needed(hour) for hour in range(24)) / 24 / TARGET)
    peak = ceil(PEAK / TARGET - EPSILON)
    night = ceil(needed(0.0) / TARGET)
    fixed = ScaleRules()
    days = {
        f"fixed for the peak, {peak}": day(peak, fixed, seed),
        f"fixed for the mean, {mean}": day(mean, fixed, seed),
        "by time table": day(night, ScaleRules(timetable=timetable()), seed),
        "by load": day(night, ScaleRules(most=MOST, target=TARGET, down_s=DOWN_S), seed),
    }
    most = next(iter(days.values())).hours
    rows = tuple(_row(name, one, most) for name, one in days.items())
    return Findings(Table(HEAD, rows), {"": _chart(days)}, _says(days, most))


def _row(name: str, one: Day, most: float) -> tuple[Cell, ...]:
    figures = one.tally.all
    bad = sum(number for code, number in figures.codes.items() if code is not None)
    shares = PERCENT * one.hours / most, PERCENT * figures.attainment
    return name, one.hours, *shares, bad, figures.requests, one.changes


def _says(days: dict[str, Day], most: float) -> str:
    told = [
        f"{name}: {PERCENT * one.hours / most:.0f} % of the peak fleet's instance-hours, "
        f"{PERCENT * one.tally.all.attainment:.1f} % within {TTFT_S:.0f} s"
        for name, one in days.items()
    ]
    return "; ".join(told) + ". What is not held could do something else meanwhile."


def _chart(days: dict[str, Day]) -> dict[str, Any]:
    first = next(iter(days.values()))
    wanted = [[hour, needed(hour) / TARGET] for hour, _ in first.groups]
    lines = [{"name": "needed", "points": wanted, "dashed": True}]
    lines += [{"name": name, "points": one.groups} for name, one in days.items() if name.startswith("by ")]
    return {
        "title": "Groups follow the tide",
        "subtitle": f"Open groups of {SHAPE[0]}:{SHAPE[1]} over a day that passes in an hour; needed: at 70 % use",
        "x": {"label": "hour of the day"},
        "y": {"label": "groups"},
        "lines": lines,
    }
