"""Around one fault, every single request: what clients lose, and whether the month's fluid says the same.

One group of the month's experiment, 4:6, at 85 % of what it can do, for ten minutes; the model loads in five. The fault
comes after one. `predicted` is what the fluid of the same run says; `lost` are the requests that were refused, because
they had waited for five seconds, or that broke off. A prompt has 12,000 tokens; the answer is as long as makes six
decodes capable of what four prefills are, by b / T. Under group restart nothing is repeated and no stream goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from typing import Final

from simulator.baselines.group_restart import LOST
from simulator.cluster.hurting import Hurting
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.fluid import Fluid
from simulator.experiments.loads import at_rate
from simulator.experiments.month import DEMAND, SHAPE, SYSTEMS, Case, instance, kept
from simulator.faults.events import Died, Fault, Froze, Slowed
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival

NAME: Final = "around"
TITLE: Final = "Around a fault: what clients lose, and what the fluid predicts"
CASE: Final = Case(sum(SHAPE), 1)
AT_S: Final = 60.0
SECONDS: Final = 600.0
PROMPT: Final = 12_000
BATCH: Final = 64
QUEUE_S: Final = 5.0
NAMES: Final = ("chat-main-p0", "chat-main-d0")
"""Of those that are hit."""
HEAD: Final = ("system", "fault", "requests", "lost, predicted", "lost", "of them begun", "went on elsewhere")


@dataclass(slots=True)
class Told:
    """Of the requests of one run."""

    requests: int = 0
    lost: int = 0
    begun: int = 0  # of the lost, those whose clients had tokens
    moved: int = 0  # went on elsewhere

    def __call__(self, outcome: Outcome) -> None:
        """Look at one that has ended."""
        self.requests += 1
        self.lost += not outcome.ok
        self.begun += not outcome.ok and outcome.first is not None
        self.moved += outcome.ok and outcome.attempts > 1


@cache
def profile() -> Profile:
    """Of an instance."""
    return replace(instance(), max_sequences=BATCH, load_s=CASE.load_s)


@cache
def answer() -> int:
    """Tokens of an answer with which both roles are capable of as much."""
    timing, (prefill, decode), tokens = profile().timing, SHAPE, 1
    wanted = prefill / timing.prefill_s(PROMPT, 0) / decode
    while BATCH / (tokens * timing.step_s(BATCH, BATCH * (PROMPT + tokens / 2))) > wanted:
        tokens += 1
    return tokens


def faults() -> list[tuple[str, str, Fault]]:
    """Who is hit by what: the system, the fault in words, the fault."""
    prefill, decode = NAMES
    dies = Died(AT_S, prefill, SECONDS)
    return [
        ("a", "a prefill dies", dies),
        ("a", "a decode dies", Died(AT_S, decode, SECONDS)),
        ("a", "a prefill stands still, 60 s", Froze(AT_S, prefill, AT_S + 60.0)),
        ("a", "a decode stands still, 60 s", Froze(AT_S, decode, AT_S + 60.0)),
        ("a", "a prefill slows to a third, 120 s", Slowed(AT_S, prefill, AT_S + 120.0, 3.0)),
        ("b", "a prefill dies", dies),
        ("b", "a decode stands still, 60 s", Froze(AT_S, decode, AT_S + 60.0)),
        ("c", "a prefill dies", dies),
    ]


def spec(system: str) -> FleetSpec:
    """One group."""
    group = GroupSpec("main", *SHAPE, profile())
    scenario = ScenarioSpec("chat", (group,), prefill_slots=2, queue_s=QUEUE_S)
    whole = FleetSpec((scenario,))
    return replace(whole, rules=LOST) if system == "b" else whole


def around(system: str, fault: Fault, seed: int) -> tuple[Told, float]:
    """One run: what became of the requests, and how many the fluid says are lost."""
    told = Told()
    simulation = Simulation(spec(system), told)
    fluid = Fluid(simulation, DEMAND)
    keeper = kept(simulation, system, CASE)
    Hurting(simulation, keeper, iter([fault]), fluid.touch)
    rate = DEMAND * SHAPE[0] / profile().timing.prefill_s(PROMPT, 0)
    simulation.feed(at_rate(_alike(), rate, SECONDS, seed))
    simulation.run(SECONDS)
    predicted = fluid.share() * SECONDS * rate
    simulation.run()
    return told, predicted


def _alike() -> Iterator[Arrival]:
    return repeat(Arrival(0.0, PROMPT, answer()))


def run(seed: int) -> Findings:
    """Every fault under its system."""
    found = [(system, kind, *around(system, fault, seed)) for system, kind, fault in faults()]
    rows: list[tuple[Cell, ...]] = [
        (f"{system}: {SYSTEMS[system]}", kind, told.requests, predicted, told.lost, told.begun, told.moved)
        for system, kind, told, predicted in found
    ]
    mine = [told for system, _, told, _ in found if system != "b"]
    (substitute, as_said), (restart, as_said_too) = found[0][2:], found[5][2:]
    says = (
        f"With Baton {sum(one.begun for one in mine)} streams broke off in {len(mine)} runs, and "
        f"{sum(one.moved for one in mine)} requests went on elsewhere; all it lost are new requests for which the "
        f"smaller group had no room within {QUEUE_S:.0f} s. After one prefill's death a group restart broke off "
        f"{restart.begun} streams and refused {restart.lost - restart.begun} requests. The fluid says {as_said:.0f} "
        f"for the {substitute.lost} lost with a substitute, and {as_said_too:.0f} for the {restart.lost} with a "
        "restart: it knows of no wait that takes in what is short, of no chance, and of no streams that break off."
    )
    return Findings(Table(HEAD, tuple(rows)), {}, says)
