"""P/D-Serve's first version: a queue in each prefill, and gateways that pick the one with the fewest connections.

A connection stays open until the last token, so it covers decode, too, and says little of a prefill's queue; and each
gateway sees its own only. Give the scenario so many slots that no prefill ever refuses.
"""

from collections import Counter
from collections.abc import Callable
from itertools import count

from shared.errors import Code
from shared.messages import Role
from shared.policy.admission import Refused
from simulator.cluster.attempt import Attempt
from simulator.cluster.bus import Bus
from simulator.cluster.gateway import Gateway, Open
from simulator.cluster.spec import FleetSpec
from simulator.cluster.worker import Worker
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival

SLOTS: int = 1 << 20
"""Of a prefill that queues."""


class FewestConnections(Gateway):
    """Sends each request once, and waits."""

    def __init__(
        self, name: str, bus: Bus, spec: FleetSpec, workers: dict[str, Worker], record: Callable[[Outcome], None]
    ) -> None:
        super().__init__(name, bus, spec, workers, record)
        self._connections: Counter[str] = Counter()
        self._turns = count()

    def arrive(self, arrival: Arrival) -> None:
        """Send it to whom we have the fewest connections with; in turn among equals."""
        now, scenario = self._clock.now, self._scenarios[arrival.scenario]
        prefills = [
            name
            for name, worker in self._workers.items()
            if worker.role is Role.PREFILL and worker.scenario.name == arrival.scenario
        ]
        turn = next(self._turns)
        at = min(range(len(prefills)), key=lambda n: (self._connections[prefills[n]], (n - turn) % len(prefills)))
        self._numbers += 1
        request_id = f"{self.name}-{self._numbers}"
        one = Open(request_id, Outcome(arrival, now), now + scenario.first_token_s, now + scenario.timeout_s)
        self._open[request_id] = one
        one.attempt = Attempt((request_id, 0), arrival, 0, one.deadline, one.expires, self)
        one.outcome.offers = 1
        self._connections[prefills[at]] += 1
        self._bus.say(self._workers[prefills[at]].hear, one.attempt)

    def accepted(self, attempt: Attempt, instance: str) -> None:
        """It waits in the prefill's queue."""

    def rejected(self, attempt: Attempt, instance: str, refused: Refused) -> None:  # noqa: ARG002
        """End it: nobody else is asked."""
        self.failed(attempt, refused.code, retryable=False)

    def first_token(self, attempt: Attempt) -> None:
        """Hear the first token."""
        one = self._current(attempt)
        if one is not None:
            self._begin(one, attempt)

    def handed_off(self, attempt: Attempt, decode: str) -> None:
        """The connection stays with the prefill."""

    def ended(self, attempt: Attempt) -> None:
        """Hear the last token."""
        one = self._current(attempt)
        if one is not None:
            self._begin(one, attempt)
            self._hang_up(one, None)

    def failed(self, attempt: Attempt, code: Code, retryable: bool) -> None:  # noqa: ARG002, FBT001
        """End it: nothing is tried again."""
        one = self._current(attempt)
        if one is not None:
            self._hang_up(one, code)

    def _hang_up(self, one: Open, code: Code | None) -> None:
        if one.attempt is not None and one.attempt.prefill is not None:
            self._connections[one.attempt.prefill.name] -= 1
        self._close(one, code)
