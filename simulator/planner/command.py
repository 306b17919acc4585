"""`baton plan`, put together: a trace and objectives in, the cheapest fleet and what surrounds it out."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.engine.kept import ProfileError, read_profile
from simulator.planner.aims import Aims, PlanError, read_aims
from simulator.planner.around import Near, sensitivity
from simulator.planner.demand import Demand
from simulator.planner.search import Fleet, Search
from simulator.planner.telling import as_json, as_text
from simulator.planner.tides import Tide, tide
from simulator.planner.trial import Cache
from simulator.workload.arrival import Arrival
from simulator.workload.files import TraceError
from simulator.workload.mixing import times_rate
from simulator.workload.reading import read_trace

DEFAULT = "h200-llama-8b"


@dataclass(frozen=True, slots=True)
class Plan:
    """The cheapest fleet, with what else was tried."""

    demand: Demand
    aims: Aims
    fleet: Fleet
    others: tuple[tuple[str, Fleet | None], ...]  # of the other profiles; None: out of reach
    near: tuple[Near, ...]
    tide: Tide | None


def run(options: argparse.Namespace) -> int:
    """Plan, print. 0 done, 1 no fleet reaches it, 2 wrong words or files."""
    try:
        aims = read_aims(options.slo)
        demand = Demand.of(_arrivals(options))
        searches = [
            Search(read_profile(name), demand, aims, options.seed, Cache(options.cache_blocks, options.block_tokens))
            for name in options.profile or [DEFAULT]
        ]
        plan = planned(searches, _tell)
    except (PlanError, TraceError, ProfileError) as error:
        sys.stderr.write(f"baton: {error}\n")
        return 2
    if plan is None:
        names = ", ".join(search.profile.name for search in searches)
        sys.stderr.write(
            f"baton: no fleet of {names} reaches {aims}: one request alone misses it, or any number does\n"
        )
        return 1
    text = json.dumps(as_json(plan), indent=2) + "\n" if options.json else as_text(plan)
    sys.stdout.write(text)
    return 0


def planned(searches: list[Search], tell: Callable[[str], None] = lambda _: None) -> Plan | None:
    """The cheapest over all profiles; of equally cheap ones that with fewer devices, then the first."""
    found: list[tuple[Search, Fleet | None]] = []
    for search in searches:
        search.tell = tell
        found.append((search, search.best()))
    reached = [(search, fleet) for search, fleet in found if fleet is not None]
    if not reached:
        return None
    search, fleet = min(reached, key=lambda one: (one[1].price, one[1].devices))
    others = tuple((other.profile.name, one) for other, one in found if other is not search)
    near = tuple(sensitivity(search, fleet))
    return Plan(search.demand, search.aims, fleet, others, near, tide(search, fleet))


def _arrivals(options: argparse.Namespace) -> Iterable[Arrival]:
    if options.times <= 0:
        raise PlanError(f"--times {options.times:g}: a rate is above 0")

    def read() -> Iterable[Arrival]:
        return read_trace(options.trace, seed=options.seed, spread=options.spread)

    if options.times == 1.0:
        return read()
    last = max((one.at for one in read()), default=0.0)
    return times_rate(read, last + 1e-6, options.times, options.seed, shared=False)


def _tell(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
