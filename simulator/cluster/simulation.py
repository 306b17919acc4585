"""A whole fleet against a workload: builds it, feeds it, hurts it where asked, and runs until all has ended."""

import gc
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from shared.messages import Epoch, Group, Member, Role, ScenarioMap, State
from simulator.clock import Clock
from simulator.cluster.bus import Bus
from simulator.cluster.decode import Decode
from simulator.cluster.gateway import Gateway
from simulator.cluster.prefill import Prefill
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.cluster.worker import Post, Worker
from simulator.measures.outcome import Outcome
from simulator.network import Network
from simulator.network.straight import Straight
from simulator.workload.arrival import Arrival

LINK_BYTES_S = 25e9
"""Of a network that nobody chose: 200 Gb/s."""


class Simulation:
    """One run. `record` hears of each request's end; `network` is made with the clock; none: the straight one.

    `gateway`: another one is a baseline.
    """

    def __init__(
        self,
        spec: FleetSpec,
        record: Callable[[Outcome], None],
        network: Callable[[Clock], Network] | None = None,
        gateway: type[Gateway] = Gateway,
    ) -> None:
        self.spec = spec
        self.clock = Clock()
        self.bus = Bus(self.clock, spec.message_s)
        self.network = network(self.clock) if network is not None else Straight(self.clock, LINK_BYTES_S)
        self.workers: dict[str, Worker] = {}
        self.decodes: dict[str, Decode] = {}
        self.ended: list[Callable[[Outcome], None]] = [record]  # all are told
        self.arrived: list[Callable[[Arrival], None]] = []
        self.fallen: list[Callable[[Worker], None]] = []  # of who died, or stands still
        self.thawed: list[Callable[[Worker], None]] = []
        self._epochs = count(1)
        self._maps: dict[str, ScenarioMap] = {}
        self._feeding = 0  # workloads that are not at their end
        self._to_the_end = False
        self.open = 0  # requests that have not ended
        self.gateways = [
            gateway(f"g{number}", self.bus, spec, self.workers, self._end) for number in range(spec.gateways)
        ]
        self._turn = 0
        for scenario in spec.scenarios:
            self._build(scenario)

    # ---- the fleet

    def _build(self, scenario: ScenarioSpec) -> None:
        groups = []
        for group in scenario.groups:
            decodes = [self.start(scenario, group, Role.DECODE, f"d{n}") for n in range(group.decode)]
            prefills = [self.start(scenario, group, Role.PREFILL, f"p{n}") for n in range(group.prefill)]
            groups.append(
                Group(
                    group.name,
                    [Member(one.name, one.epoch) for one in prefills],
                    [Member(one.name, one.epoch) for one in decodes],
                    prefills=group.prefill,
                    decodes=group.decode,
                    strategy=group.strategy,
                )
            )
        self.publish(ScenarioMap(scenario.name, 1, (1, 1), groups))

    def start(self, scenario: ScenarioSpec, group: GroupSpec, role: Role, name: str) -> Worker:
        """Let an instance be there from now on: `scenario-group-name`, or another life of that name."""
        return self.begin(scenario, group, role, f"{scenario.name}-{group.name}-{name}", self.next_epoch())

    def begin(  # noqa: PLR0917
        self, scenario: ScenarioSpec, group: GroupSpec, role: Role, name: str, epoch: Epoch, number: int = 0
    ) -> Worker:
        """Let an instance of that whole name serve from now on; it has said `number` statuses under this epoch."""
        profile = (group.decode_profile or group.profile) if role is Role.DECODE else group.profile
        post = Post(name, group.name, epoch, scenario, profile, self.bus, self.spec, number)
        worker: Worker
        if role is Role.DECODE:
            worker = self.decodes[name] = Decode(post)
        else:
            self.decodes.pop(name, None)
            worker = Prefill(post, self.network, self.decodes)
        self.network.place(name)
        self.workers[name] = worker
        worker.announce()
        part = (len(self.workers) * 0.6180339887) % 1.0  # heartbeats are spread over their period
        self.clock.after(self.spec.heartbeat_s * (0.5 + part / 2), worker.beat)
        return worker

    def next_epoch(self) -> Epoch:
        """One that no life and no leader has had."""
        return (1, next(self._epochs))

    def publish(self, scenario_map: ScenarioMap) -> None:
        """Announce a scenario's members."""
        self._maps[scenario_map.scenario] = scenario_map
        self.bus.announce(scenario_map)

    def map(self, scenario: str) -> ScenarioMap:
        """The newest map."""
        return self._maps[scenario]

    def kill(self, name: str) -> None:
        """Let an instance die. Gateways that have something there ask NATS, which says twice that nobody listens."""
        worker = self.workers[name]
        worker.die()
        for wait_s in (0.15, 0.3):
            for gateway in self.gateways:
                self.clock.after(wait_s, gateway.nobody_there, name)
        for hear in self.fallen:
            hear(worker)

    def freeze(self, name: str, seconds: float) -> None:
        """Let an instance stand still for so long. What is there stalls; what is offered is not answered."""
        worker = self.workers[name]
        worker.freeze()
        for gateway in self.gateways:
            if seconds > self.spec.progress_s:
                self.clock.after(self.spec.progress_s, gateway.stalled, name)
        self.clock.after(seconds, self._thaw, worker)
        for hear in self.fallen:
            hear(worker)

    def _thaw(self, worker: Worker) -> None:
        if worker.up and worker.frozen:
            worker.thaw()
            for hear in self.thawed:
                hear(worker)

    def stop(self, name: str) -> None:
        """Let an instance say that it stops, and end."""
        worker = self.workers[name]
        self.bus.announce(worker.status(State.STOPPED))
        worker.die()

    # ---- requests

    def feed(self, workload: Iterable[Arrival]) -> None:
        """Let these come at their times, counted from now."""
        self.more()
        self._next(iter(workload), self.clock.now)

    def _next(self, workload: Iterator[Arrival], begin: float) -> None:
        arrival = next(workload, None)
        if arrival is None:
            self.no_more()
            return
        self.clock.at(begin + arrival.at, self._arrive, arrival, workload, begin)

    def _arrive(self, arrival: Arrival, workload: Iterator[Arrival], begin: float) -> None:
        self.submit(arrival)
        self._next(workload, begin)

    def more(self) -> None:
        """Note that somebody will submit requests: `run` goes on until `no_more`."""
        self._feeding += 1

    def no_more(self) -> None:
        """Note that this one has submitted all."""
        self._feeding -= 1
        self._look()

    def submit(self, arrival: Arrival) -> None:
        """Let a request come now, to the gateway whose turn it is."""
        self.open += 1
        for hear in self.arrived:
            hear(arrival)
        self._turn = (self._turn + 1) % len(self.gateways)
        self.gateways[self._turn].arrive(arrival)

    def _end(self, outcome: Outcome) -> None:
        self.open -= 1
        for hear in self.ended:
            hear(outcome)
        self._look()

    def _look(self) -> None:
        if self._to_the_end and not self.open and not self._feeding:
            self.clock.stop()

    def run(self, until: float | None = None) -> None:
        """Run to that moment, or until every request that is fed has ended.

        Without the garbage collector, which would look through the whole fleet again and again: a third of the time at
        ten thousand instances. Nothing here needs it, since an attempt forgets what knows it.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            if until is not None:
                self.clock.run(until)
            elif self.open or self._feeding:
                self._to_the_end = True
                self.clock.run()
                self._to_the_end = False
        finally:
            if collects:
                gc.enable()
