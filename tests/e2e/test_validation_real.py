"""A short load through a real cluster and through the simulator: what behaviour allows to demand."""

import pytest

from bench.validation.replay import prompt, replay
from simulator.engine.kept import of_sim
from simulator.validation.loads import Load
from simulator.validation.record import Costs
from simulator.validation.served import Served
from simulator.validation.simulated import PHASES, simulated
from simulator.workload.arrival import Arrival
from simulator.workload.synthetic import fixed, poisson, workload

TIMES = 10.0
"""A real run on a busy machine may take so many times as long: an order of magnitude."""


def _arrivals() -> list[Arrival]:
    return list(workload(poisson(4.0, 6.0, seed=3), fixed(300, 12), seed=3))


@pytest.mark.long
async def test_a_real_cluster_and_the_simulated_one_serve_the_same_requests() -> None:
    load = Load("short", "A few seconds", _arrivals, 1, 1)
    take = await replay(load)
    there, ours = Served.of([take], load), simulated(load, Costs(0.001, 0.001, 1e9), [take])
    timing = of_sim(load.options).timing
    assert there.good == ours.good == 1.0
    assert ours.tokens == PHASES * there.tokens
    for arrival, answer in zip(_arrivals(), there.answers, strict=True):
        assert (answer.ttft_ms or 0.0) >= 1000 * timing.prefill_s(arrival.input_tokens, 0)
        assert (answer.tpot_ms or 0.0) >= 0.5 * 1000 * timing.step_s(1, 0.0)
    assert ours.ttft_ms.mean / 2 < there.ttft_ms.mean < TIMES * ours.ttft_ms.mean
    assert ours.tpot_ms.mean / 2 < there.tpot_ms.mean < TIMES * ours.tpot_ms.mean


def test_prompts_share_what_their_blocks_say() -> None:
    one, other = (list(prompt(Arrival(0.0, 40, 2, ids), 0)) for ids in ((1, 2, 3), (1, 2, 9)))
    assert len(one) == len(other) == 40
    assert one[:32] == other[:32]
    assert one[32:] != other[32:]
    alone, again = (list(prompt(Arrival(0.0, 40, 2), number)) for number in (1, 2))
    assert alone[:16] != again[:16]
