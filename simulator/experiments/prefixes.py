"""Mooncake's traces against the prefix cache, alone and behind routing.

Alone: one cache sees every prompt in order, so its hits are known beforehand. Unbounded, each distinct block is missed
once; of LRU caches the traces' own table is recomputed. Its LRU lets a prompt's first blocks leave before its last
ones; ours keeps the first ones longest, since nothing behind a missing block can be used, and finds a little more.

Behind routing: a fleet in which every prefill has a cache of its own, unbounded, so that all that is lost is lost by
routing. Prefills of a fleet of n are so fast that n of them are 60 % busy if nothing is cached: the use stays the same,
and nothing but their number changes. Answers are cut to their first token, which ends with the prompt; requests of one
time stamp come together, as the traces have them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from msgspec import structs

from shared.policy.dispatch_events import DispatchRules
from shared.policy.routes import RouteRules
from simulator.cluster.cache import PrefixCache
from simulator.cluster.prefill import Prefill
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.forms import Sim
from simulator.engine.profile import Profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival
from simulator.workload.files import TraceError, traces_folder
from simulator.workload.reading import MOONCAKE_BLOCK, read_trace

NAME = "prefixes"
TITLE = "Prefix hits by cache size and by routing"
TRACES: Final = ("conversation", "synthetic")
SIZES: Final = (1_000, 5_000, 20_000, 50_000)
PREFILLS: Final = (2, 4, 8, 16)
BUSY: Final = 0.6
FOREVER_S: Final = 1e9
BEAT_S: Final = 5.0
"""Nobody dies here: heartbeats would only cost time."""

Prompts = Sequence[tuple[int, ...]]


@cache
def trace(name: str) -> tuple[Arrival, ...]:
    """One of Mooncake's. Raises TraceError where there are no traces."""
    folder = traces_folder()
    if folder is None:
        raise TraceError("Mooncake's traces are wanted: set BATON_TRACES to the traces' folder")
    return tuple(read_trace(folder / f"mooncake-fast25/{name}_trace.jsonl"))


def alone(prompts: Prompts, capacity: int | None) -> int:
    """Blocks that one cache of ours finds."""
    held = PrefixCache(capacity)
    for blocks in prompts:
        held.match(blocks)
        held.add(blocks)
    return held.found


def first_out(prompts: Prompts, capacity: int) -> int:
    """Blocks that the traces' LRU finds: a prompt's blocks are used from the first to the last, so the first leave."""
    held, found = OrderedDict[int, None](), 0
    for blocks in prompts:
        known = next((place for place, block in enumerate(blocks) if block not in held), len(blocks))
        found += known
        for block in blocks:
            held[block] = None
            held.move_to_end(block)
        while len(held) > capacity:
            held.popitem(last=False)
    return found


def routed(arrivals: Sequence[Arrival], prefills: int, *, affinity: bool) -> tuple[int, int]:
    """Blocks found and asked for in a fleet. Nobody is refused: requests wait as long as they must."""
    tokens = sum(one.input_tokens for one in arrivals)
    token_ms = 1000 * BUSY * prefills * arrivals[-1].at / tokens
    timing = Sim((0.0, token_ms, 0.0), 10.0)
    profile = Profile("quick", timing, kv_tokens=1 << 40, kv_bytes_per_token=1, max_sequences=4096)
    scenario = ScenarioSpec(
        "chat",
        (GroupSpec("main", prefills, 1, profile),),
        queue_s=FOREVER_S,
        first_token_s=FOREVER_S,
        timeout_s=FOREVER_S,
        routes=RouteRules(affinity=affinity),
        block_tokens=MOONCAKE_BLOCK,
        cache_blocks=None,
    )
    rules = DispatchRules(max_waiting=1 << 30, max_open=1 << 30)
    simulation = Simulation(FleetSpec((scenario,), rules=rules, heartbeat_s=BEAT_S), _well)
    simulation.feed(structs.replace(one, output_tokens=1) for one in arrivals)
    simulation.run()
    caches = [worker.cache for worker in simulation.workers.values() if isinstance(worker, Prefill)]
    return sum(one.found for one in caches), sum(one.asked for one in caches)


def _well(outcome: Outcome) -> None:
    if not outcome.ok:
        raise AssertionError(f"a request was lost: {outcome.code}")


def run(seed: int) -> Findings:  # noqa: ARG001  nothing is drawn
    """Both traces."""
    rows: list[tuple[Cell, ...]] = []
    sizes: list[dict[str, Any]] = []
    fleets: list[dict[str, Any]] = []
    whole: dict[str, float] = {}
    for name in TRACES:
        prompts = [one.blocks for one in trace(name)]
        blocks = sum(map(len, prompts))
        found = {size: alone(prompts, size) for size in SIZES}
        whole[name] = 100 * alone(prompts, None) / blocks
        rows += _alone_rows(name, prompts, {**found, blocks: alone(prompts, None)}, blocks)
        sizes.append({"name": name, "points": [[size, 100 * hits / blocks] for size, hits in found.items()]})
        for affinity in (False, True):
            hits = {number: routed(trace(name), number, affinity=affinity)[0] for number in PREFILLS}
            points = [[number, 100 * one / blocks] for number, one in hits.items()]
            said = f"{name}, affinity" if affinity else name
            fleets.append({"name": said, "points": points, "dashed": not affinity})
        rows += _routed_rows(name, fleets[-2]["points"], fleets[-1]["points"], blocks)
    return Findings(
        Table(("trace", "where", "found, blocks", "%", "against", "found, blocks", "%"), tuple(rows)),
        {"sizes": _chart("size of one cache, blocks", sizes), "fleets": _chart("prefills", fleets)},
        _says(whole, fleets),
    )


def _alone_rows(name: str, prompts: Prompts, found: dict[int, int], blocks: int) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for size, ours in found.items():
        theirs = first_out(prompts, size)
        what = "one cache, unbounded" if size == blocks else f"one cache of {size:,} blocks"
        rows.append((name, what, ours, 100 * ours / blocks, "first blocks leave first", theirs, 100 * theirs / blocks))
    return rows


def _routed_rows(name: str, fewest: list[list[float]], known: list[list[float]], blocks: int) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for (number, lost), (_, there) in zip(fewest, known, strict=True):
        kept, left = round(there * blocks / 100), round(lost * blocks / 100)
        rows.append((name, f"{number:.0f} prefills, affinity", kept, there, "fewest streams", left, lost))
    return rows


def _chart(what: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": "Prefix hits",
        "subtitle": "Share of all blocks of the prompts that were found computed, %",
        "x": {"label": what, "log": True},
        "y": {"label": "%"},
        "lines": lines,
    }


def _says(whole: dict[str, float], fleets: list[dict[str, Any]]) -> str:
    """What most prefills lose, by routing."""
    ends = {line["name"]: line["points"][-1][1] for line in fleets}
    parts = [
        f"{name}: of the {whole[name]:.1f} % that one prefill finds, {PREFILLS[-1]} keep {ends[name]:.1f} % by fewest "
        f"streams and {ends[f'{name}, affinity']:.1f} % by prefix affinity"
        for name in TRACES
    ]
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."
