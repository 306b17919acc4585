"""When what breaks: Poisson processes over a fleet, merged in the order of time. Draws lazily, from a seed.

Deaths: 1 or 2 a week per 400 devices (P/D-Serve 1.8, cited from BLOOM). The other rates have no source; they are 0
unless given. A fault may hit an instance that is down already: the caller decides what that means.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from random import Random
from typing import Final

from simulator.faults.events import Cut, Degraded, Died, Fault, Froze, Slowed

WEEK_S: Final = 7 * 86400.0
DEVICES: Final = 400


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """Rates: deaths per week and 400 devices, others per week and instance or rack. Durations are means, in seconds."""

    devices: int = 1  # of an instance
    deaths: float = 1.5
    repair_s: float = 3600.0
    per_rack: int = 8
    power: float = 0.0  # a rack dies
    switch: float = 0.0  # a rack is cut off
    switch_s: float = 300.0
    freezes: float = 0.0
    freeze_s: float = 10.0
    slowdowns: float = 0.0
    slow_s: float = 600.0
    slow_factor: float = 3.0
    degradations: float = 0.0
    degraded_s: float = 600.0
    degraded_factor: float = 10.0


Make = Callable[[float, str, float], Fault]


def faults(spec: FaultSpec, instances: Sequence[str], seed: int) -> Iterator[Fault]:
    """Without end where a rate is above 0. Those of a rack come together, in the order of its instances."""
    alone: list[tuple[str, ...]] = [(name,) for name in instances]
    racks = [tuple(instances[at : at + spec.per_rack]) for at in range(0, len(instances), spec.per_rack)]
    kinds: list[tuple[str, list[tuple[str, ...]], float, float, Make]] = [
        ("died", alone, spec.deaths * spec.devices / DEVICES, spec.repair_s, Died),
        ("power", racks, spec.power, spec.repair_s, Died),
        ("switch", racks, spec.switch, spec.switch_s, Cut),
        ("froze", alone, spec.freezes, spec.freeze_s, Froze),
        (
            "slowed",
            alone,
            spec.slowdowns,
            spec.slow_s,
            lambda at, name, until: Slowed(at, name, until, spec.slow_factor),
        ),
        (
            "degraded",
            alone,
            spec.degradations,
            spec.degraded_s,
            lambda at, name, until: Degraded(at, name, until, spec.degraded_factor),
        ),
    ]
    return merge(
        *(
            _process(Random(f"{seed}-{name}"), hit, rate * len(hit) / WEEK_S, mean_s, make)
            for name, hit, rate, mean_s, make in kinds
            if rate > 0 and hit
        ),
        key=lambda fault: fault.at,
    )


def _process(random: Random, hit: list[tuple[str, ...]], per_s: float, mean_s: float, make: Make) -> Iterator[Fault]:
    now = 0.0
    while True:
        now += random.expovariate(per_s)
        until = now + random.expovariate(1 / mean_s)
        for name in random.choice(hit):
            yield make(now, name, until)
