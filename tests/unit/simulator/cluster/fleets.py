"""Small fleets with simple timings, and what must hold when all is over."""

from collections.abc import Iterator
from random import Random

from shared.policy.routes import RouteRules
from simulator.cluster.decode import Decode
from simulator.cluster.prefill import Prefill
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival


class Timing:
    """A prompt of 1,000 tokens in 110 ms, a step of 20 ms and 0.1 ms for each sequence."""

    def prefill_s(self, new: int, cached: int) -> float:
        return 0.01 + 1e-4 * new

    def step_s(self, batch: int, context: float) -> float:
        return 0.02 + 1e-4 * batch + 1e-8 * context

    def mixed_s(self, new: int, behind: int, batch: int, context: float) -> float:
        return self.prefill_s(new, behind) + 1e-4 * batch


PROFILE = Profile("test", Timing(), kv_tokens=200_000, kv_bytes_per_token=1000, max_sequences=32)


def fleet(prefill: int = 2, decode: int = 2, *, routes: RouteRules | None = None, **others: object) -> FleetSpec:
    of_fleet = {name: others.pop(name) for name in ("gateways", "seed", "rules") if name in others}
    profile = others.pop("profile", PROFILE)
    group = GroupSpec("main", prefill, decode, profile)  # type: ignore[arg-type]
    scenario = ScenarioSpec("chat", (group,), routes=routes or RouteRules(), **others)  # type: ignore[arg-type]
    return FleetSpec((scenario,), **of_fleet)  # type: ignore[arg-type]


def arrivals(number: int, rate: float, seed: int = 0, blocks: int = 0) -> Iterator[Arrival]:
    """Prompts of up to 2,000 tokens; with `blocks`, of 64 tokens each, the first four of which some share."""
    rng, at = Random(seed), 0.0
    for one in range(number):
        at += rng.expovariate(rate)
        tokens = rng.randint(300, 2000)
        shared = rng.randrange(blocks) if blocks else 0
        count = -(-tokens // 64)
        ids = tuple(1000 * shared + place for place in range(4)) + tuple(
            10**6 + 100 * one + n for n in range(count - 4)
        )
        yield Arrival(at, tokens, rng.randint(1, 60), ids if blocks else ())


def run(spec: FleetSpec, workload: Iterator[Arrival], hurt: object = None) -> tuple[Simulation, list[Outcome]]:
    outcomes: list[Outcome] = []
    simulation = Simulation(spec, outcomes.append)
    simulation.feed(workload)
    if callable(hurt):
        hurt(simulation)
    simulation.run()
    return simulation, outcomes


def check_nothing_is_left(simulation: Simulation) -> None:
    """Nobody holds anything any more."""
    simulation.run(simulation.clock.now + 1.0)  # what was said last arrives
    for worker in simulation.workers.values():
        if not worker.up:
            continue
        if isinstance(worker, Prefill):
            assert worker.admission.used == 0
            assert not worker._stints
            assert not worker._waiting
            assert all(not one.open for one in worker.view._workers.values())
        if isinstance(worker, Decode):
            assert worker.admission.used == worker.admission.granted_blocks == 0
            assert len(worker.batch) == worker.batch.prompts == 0
            assert worker.batch.free_blocks == worker.profile.blocks
    for gateway in simulation.gateways:
        assert gateway.dispatcher.open == len(gateway) == 0
        view = gateway.dispatcher.view
        assert all(not one.open and not one.unanswered for one in view._workers.values() if not one.gone)
