"""A closed loop: so many clients, each with one request at a time, as most papers measure throughput."""

from collections.abc import Iterator

from simulator.cluster.simulation import Simulation
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival


class ClosedLoop:
    """Keeps `clients` requests outstanding from `begin` on, until the requests run out; their own times do not count.

    Clients begin one after another within `ramp_s`, so that they do not march in step. One that is refused waits
    `pause_s` before its next request.
    """

    def __init__(
        self,
        simulation: Simulation,
        requests: Iterator[Arrival],
        clients: int,
        *,
        ramp_s: float = 1.0,
        pause_s: float = 1.0,
    ) -> None:
        self._simulation = simulation
        self._requests = requests
        self._pause_s = pause_s
        self._mine: set[int] = set()  # requests of ours that are open, by identity
        self._more = True
        simulation.more()
        simulation.ended.append(self._next)
        for client in range(clients):
            simulation.clock.after(ramp_s * client / clients, self._send)

    def _send(self) -> None:
        arrival = next(self._requests, None)
        if arrival is not None:
            self._mine.add(id(arrival))
            self._simulation.submit(arrival)
        elif self._more:
            self._more = False
            self._simulation.no_more()

    def _next(self, outcome: Outcome) -> None:
        if id(outcome.arrival) in self._mine:
            self._mine.discard(id(outcome.arrival))
            self._simulation.clock.after(0.0 if outcome.ok else self._pause_s, self._send)
