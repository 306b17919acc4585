"""The instance of figures 12 and 13, the lengths that go with it, and the units in which rates are told.

The paper's axes have no units, so an own scenario stands in: a Llama of 8B on H200, prompts of 1,500 tokens on average.
The answers are as long as makes one decode capable of 0.7 where one prefill is of 0.6, by P/D-Serve's equation
(c = b / T); everything else follows. Rates are told in those units.
"""

from dataclasses import replace
from functools import cache
from typing import Any, Final

from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import read_profile
from simulator.engine.profile import Profile
from simulator.experiments.loads import closed, requests
from simulator.measures.tally import Figures

PROMPT: Final = 1500
PREFILL, DECODE = 0.6, 0.7
"""What the paper's single instances are capable of."""
SLOTS: Final = 4
BATCH: Final = 32
"""Sequences of a decode: what its TPOT objective allows, in P/D-Serve's terms b_d."""
WARM_S: Final = 10.0
SECONDS: Final = 20.0
MOST: Final = 4


@cache
def profile() -> Profile:
    """The instance of all four figures."""
    return replace(read_profile("h200-llama-8b"), max_sequences=BATCH)


@cache
def prefill_s() -> float:
    """T_p of one prompt alone; a prefill computes one after another."""
    return profile().timing.prefill_s(PROMPT, 0)


@cache
def answer() -> int:
    """G, so that b_d / T_d is 0.7 where 1 / T_p is 0.6: the step's context grows with the answer, so it is searched."""
    wanted = DECODE / PREFILL / prefill_s()
    tokens = 1
    while BATCH / (tokens * step_s(tokens)) > wanted:
        tokens += 1
    return tokens


def step_s(tokens: int) -> float:
    """TPOT of a full batch whose answers are on average half done."""
    return profile().timing.step_s(BATCH, BATCH * (PROMPT + tokens / 2))


def unit() -> float:
    """Requests per second that are 1.0."""
    return 1.0 / prefill_s() / PREFILL


def spec(prefill: int, decode: int, **others: Any) -> FleetSpec:  # noqa: ANN401  ScenarioSpec's fields
    """One group."""
    group = GroupSpec("main", prefill, decode, profile())
    settings = {"prefill_slots": SLOTS, "queue_s": 600.0, "first_token_s": 600.0, "timeout_s": 3600.0, **others}
    return FleetSpec((ScenarioSpec("chat", (group,), **settings),))


def saturated(seed: int, prefill: int, decode: int, tokens: int) -> Figures:
    """A closed loop that keeps every slot and every place in a batch busy, and as many again waiting."""
    clients = 2 * (prefill * SLOTS + decode * BATCH)
    return closed(spec(prefill, decode), requests(seed, PROMPT, tokens), clients, warm_s=WARM_S, seconds=SECONDS).all
