"""Groups per scenario against one mixed pool, for what the prefix caches find.

Some scenarios, each with tens of beginnings that its prompts share. The same prefills, the same caches and the same
arrivals: in one pool for all, or each scenario with its own. A pool whose gateways go by known beginnings stands in
between. P/D-Serve 1.3.
"""

from collections.abc import Iterator
from typing import Any, Final

from shared.policy.routes import RouteRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import read_profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.tally import Figures, Objectives, Tally
from simulator.workload.arrival import Arrival
from simulator.workload.mixing import as_scenario, mixed
from simulator.workload.synthetic import Prefixes, lognormal, poisson, workload

NAME = "grouping"
TITLE = "Prefix hits: groups per scenario against a mixed pool"
SCENARIOS: Final = 6
BEGINNINGS: Final = 24
"""Of each scenario."""
BEGINNING: Final = 3072
"""Tokens of one, of prompts of about 4,000."""
BLOCK: Final = 512
PREFILLS, DECODES = 2, 2
"""Of each scenario; a pool has them all."""
SECONDS: Final = 90.0
WARM_S: Final = 30.0
RATE: Final = 11.0
"""Requests per second of a scenario."""
TTFT_S: Final = 0.5
SHARES: Final = (0.5, 1.0, 2.0, 3.0)
"""Of one scenario's beginnings that a prefill's cache has room for, beside what is each prompt's own."""


def arrivals(seed: int) -> Iterator[Arrival]:
    """All scenarios, by name."""
    lengths = lognormal((3900, 5200), (60, 180))
    return mixed(*(
        workload(
            poisson(RATE, SECONDS, seed=100 * seed + one),
            lengths,
            seed=seed,
            prefixes=Prefixes(BEGINNINGS, BEGINNING, block_tokens=BLOCK, zipf=0.6, family=one),
            scenario=f"s{one}",
        )
        for one in range(SCENARIOS)
    ))  # fmt: skip


def measured(seed: int, cache: int, *, pooled: bool, affinity: bool = False) -> Figures:
    """One arrangement, with caches of so many blocks."""
    profile = read_profile("h200-llama-8b")
    names = ["pool"] if pooled else [f"s{one}" for one in range(SCENARIOS)]
    times = SCENARIOS if pooled else 1
    settings: dict[str, Any] = {"block_tokens": BLOCK, "cache_blocks": cache, "prefill_slots": 4}
    group = GroupSpec("main", times * PREFILLS, times * DECODES, profile)
    routes = RouteRules(affinity=affinity, slack=2)
    scenarios = tuple(ScenarioSpec(name, (group,), routes=routes, **settings) for name in names)
    tally = Tally(Objectives(ttft=TTFT_S), begin=WARM_S, end=SECONDS)
    simulation = Simulation(FleetSpec(scenarios), tally)
    simulation.feed(as_scenario(arrivals(seed), "pool") if pooled else arrivals(seed))
    simulation.run()
    return tally.all


def run(seed: int) -> Findings:
    """Over sizes of the cache."""
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[list[float]]] = {}
    for share in SHARES:
        cache = round(share * BEGINNINGS * BEGINNING / BLOCK)
        arranged = {
            "groups": measured(seed, cache, pooled=False),
            "groups, affinity": measured(seed, cache, pooled=False, affinity=True),
            "pool, affinity": measured(seed, cache, pooled=True, affinity=True),
            "pool": measured(seed, cache, pooled=True),
        }
        for name, figures in arranged.items():
            rows.append((cache, name, 100 * figures.hits, 1000 * figures.ttft.percentile(50), 100 * figures.attainment))
            lines.setdefault(name, []).append([cache, 100 * figures.hits])
    groups, pool, known = ({int(x): y for x, y in lines[name]} for name in ("groups", "pool", "pool, affinity"))
    middle = round(SHARES[1] * BEGINNINGS * BEGINNING / BLOCK)
    head = ("cache, blocks", "arrangement", "hits %", "TTFT p50 ms", f"within {TTFT_S:g} s %")
    says = (
        f"With caches that have room for one scenario's beginnings ({middle} blocks) groups find "
        f"{groups[middle]:.0f} % of the prompts' tokens, a pool {pool[middle]:.0f} %, and one that goes by known "
        f"beginnings {known[middle]:.0f} %. With twice as large ones it is {groups[2 * middle]:.0f} and "
        f"{pool[2 * middle]:.0f} %, about what P/D-Serve says of its own (70 and 30 %)."
    )
    chart = {
        "title": "What a cache finds",
        "subtitle": f"{SCENARIOS} scenarios of {BEGINNINGS} beginnings; prefix hits, % of prompt tokens",
        "x": {"label": "blocks of 512 tokens in each prefill's cache"},
        "y": {"label": "%"},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }
    return Findings(Table(head, tuple(rows)), {"": chart}, says)
