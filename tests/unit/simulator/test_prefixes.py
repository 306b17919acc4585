"""Mooncake's traces in the prefix cache: hits that are known beforehand, and what routing keeps of them."""

from random import Random

import pytest

from simulator.experiments.prefixes import SIZES, alone, first_out, routed, trace
from simulator.workload.arrival import Arrival
from tests.unit.simulator.traces import CONVERSATION
from tests.unit.simulator.traces import trace as wanted

BLOCKS = {"conversation": (288_500, 182_790), "synthetic": (121_877, 43_924)}
LRU = {"conversation": (4.4, 11.0, 28.7, 35.5), "synthetic": (8.2, 27.9, 57.1, 64.0)}
"""% of the blocks, as the traces' own table has them, for each of SIZES."""


def _sharing(number: int, families: int) -> list[Arrival]:
    """Prompts of four shared blocks and two of their own."""
    rng, found = Random(1), list[Arrival]()
    for one in range(number):
        shared = 100 * rng.randrange(families)
        ids = (*range(shared, shared + 4), 10**6 + 2 * one, 10**6 + 2 * one + 1)
        found.append(Arrival(0.4 * one, 6 * 512, 2, ids))
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_a_cache_without_bounds_misses_each_distinct_block_once(name: str) -> None:
    wanted(CONVERSATION)
    prompts = [one.blocks for one in trace(name)]
    every, distinct = BLOCKS[name]
    assert sum(map(len, prompts)) == every
    assert alone(prompts, None) == every - distinct


@pytest.mark.parametrize("name", BLOCKS)
def test_lru_caches_find_what_the_traces_table_says(name: str) -> None:
    wanted(CONVERSATION)
    prompts = [one.blocks for one in trace(name)]
    for size, percent in zip(SIZES, LRU[name], strict=True):
        theirs, ours = (100 * found(prompts, size) / BLOCKS[name][0] for found in (first_out, alone))
        assert theirs == pytest.approx(percent, abs=0.06)
        assert theirs <= ours < theirs + 0.25


@pytest.mark.long
def test_one_prefill_of_a_simulated_fleet_finds_what_one_cache_finds() -> None:
    wanted(CONVERSATION)
    for name, (every, distinct) in BLOCKS.items():
        assert routed(trace(name), 1, affinity=False) == (every - distinct, every)


def test_prompts_behind_each_other_at_one_prefill_find_the_one_before() -> None:
    together = [Arrival(0.0, 1024, 1, (1, 2)), Arrival(0.0, 1024, 1, (1, 3)), Arrival(1.0, 1024, 1, (1, 2))]
    assert routed(together, 1, affinity=False) == (3, 6)


def test_affinity_keeps_what_fewest_streams_loses() -> None:
    arrivals = _sharing(400, families=40)
    best = alone([one.blocks for one in arrivals], None)
    lost, asked = routed(arrivals, 8, affinity=False)
    kept, _ = routed(arrivals, 8, affinity=True)
    assert asked == 6 * 400
    assert lost < 0.8 * best
    assert 0.9 * best < kept <= best
