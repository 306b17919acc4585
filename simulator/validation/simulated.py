"""A load through the simulator, with the settings, the names and the sending times of a real run."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from msgspec import structs

from shared.messages import Role
from shared.policy.routes import RouteRules
from simulator.cluster.bus import Bus
from simulator.cluster.gateway import Gateway
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.cluster.worker import Worker
from simulator.engine.kept import of_sim
from simulator.measures.outcome import Outcome
from simulator.network.straight import Straight
from simulator.validation.loads import WARM_S, WARM_UP, Load
from simulator.validation.record import Costs
from simulator.validation.served import Answer, Served, Take

PHASES: Final = 4
"""When heartbeats fall between the requests is chance: each run is simulated so many times, the load begins later by a
part of their period each time."""


class _Named(Simulation):
    """A fleet with the real one's names, on which ties between equals depend."""

    def start(self, scenario: ScenarioSpec, group: GroupSpec, role: Role, name: str) -> Worker:
        return self.begin(scenario, group, role, f"{role.value}-{int(name[1:]) + 1}", self.next_epoch())


class _NamedGateway(Gateway):
    def __init__(
        self,
        name: str,
        bus: Bus,
        spec: FleetSpec,
        workers: dict[str, Worker],
        record: Callable[[Outcome], None],
    ) -> None:
        super().__init__(f"gateway-{int(name[1:]) + 1}", bus, spec, workers, record)


def simulated(load: Load, costs: Costs, takes: Sequence[Take] = ()) -> Served:
    """Every run of the load again, `PHASES` times, its requests sent when they really were; without one, when due."""
    late_ms = [[one.late_ms for one in take] for take in takes] or [[0.0] * len(load.arrivals())]
    again = [_simulated(load, costs, late, phase / PHASES) for late in late_ms for phase in range(PHASES)]
    return Served.of(again, load)


def _simulated(load: Load, costs: Costs, late_ms: Sequence[float], phase: float) -> Take:
    spec = _spec(load, costs)
    begin = WARM_S + phase * spec.heartbeat_s
    sent = [
        structs.replace(one, at=begin + one.at + late / 1000)
        for one, late in zip(load.arrivals(), late_ms, strict=True)
    ]
    outcomes: dict[int, Outcome] = {}

    def record(outcome: Outcome) -> None:
        outcomes[id(outcome.arrival)] = outcome

    simulation = _Named(spec, record, lambda clock: Straight(clock, costs.kv_bytes_s), _NamedGateway)
    simulation.feed(sorted([*WARM_UP, *sent], key=attrgetter("at")))
    simulation.run()
    edge_ms = 1000 * costs.edge_s
    return [_answer(outcomes[id(one)], late, edge_ms) for one, late in zip(sent, late_ms, strict=True)]


def _spec(load: Load, costs: Costs) -> FleetSpec:
    cache = None if load.options.get("enable_prefix_cache") else 0
    group = GroupSpec("main", load.prefills, load.decodes, of_sim(load.options))
    scenario = ScenarioSpec(
        "chat",
        (group,),
        prefill_slots=load.prefill_slots,
        queue_s=load.queue_s,
        routes=RouteRules(),
        block_tokens=int(load.options["block_size"]),
        cache_blocks=cache,
    )
    return FleetSpec((scenario,), message_s=costs.message_s)


def _answer(outcome: Outcome, late_ms: float, edge_ms: float) -> Answer:
    e2e_ms = outcome.e2e * 1000 + edge_ms
    if not outcome.ok or outcome.ttft is None:
        return Answer(late_ms, None, None, e2e_ms)
    return Answer(late_ms, outcome.ttft * 1000 + edge_ms, None if outcome.tpot is None else outcome.tpot * 1000, e2e_ms)
