"""Mooncake's early rejection: who is refused at arrival by the load of the decodes, of the moment or as predicted.

A gateway that asks before it lets a request in; behind that question it is Baton's own. The load of the moment is the
streams that the decodes have: those in prefill are not among them, so it is too low while many are on their way and too
high when these have come. The prediction counts those that will have come when this one's prompt is computed, without
those that will have ended by then, as if every answer were as long as the mean of those that ended.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from shared.errors import Code
from simulator.cluster.attempt import Attempt
from simulator.cluster.bus import Bus
from simulator.cluster.decode import Decode
from simulator.cluster.gateway import Gateway
from simulator.cluster.spec import FleetSpec
from simulator.cluster.worker import Worker
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival


class ByLoad(Gateway):
    """Refuses while the decodes hold as many streams as they may. One gateway sees them all."""

    share = 0.9
    """Of the places in the batches, above which is refused."""

    def __init__(
        self, name: str, bus: Bus, spec: FleetSpec, workers: dict[str, Worker], record: Callable[[Outcome], None]
    ) -> None:
        super().__init__(name, bus, spec, workers, record)
        self._refuse = record

    def arrive(self, arrival: Arrival) -> None:
        """Let it in, or refuse it at once."""
        if self.load() < self.share * self.places():
            super().arrive(arrival)
            return
        self._refuse(Outcome(arrival, self._clock.now, ended=self._clock.now, code=Code.OVERLOADED))

    def decodes(self) -> list[Decode]:
        """All."""
        return [worker for worker in self._workers.values() if isinstance(worker, Decode)]

    def places(self) -> int:
        """Sequences that the batches can have."""
        return sum(decode.profile.max_sequences for decode in self.decodes())

    def load(self) -> float:
        """Streams that decode now."""
        return float(sum(len(decode.batch) for decode in self.decodes()))


class ByPrediction(ByLoad):
    """Refuses by the load that is to be expected when the prompt is computed."""

    def __init__(
        self, name: str, bus: Bus, spec: FleetSpec, workers: dict[str, Worker], record: Callable[[Outcome], None]
    ) -> None:
        super().__init__(name, bus, spec, workers, record)
        self._ends: list[float] = []  # heap: when those that decode will have ended
        self._prompts: deque[float] = deque(maxlen=64)  # seconds until the first token
        self._answers: deque[float] = deque(maxlen=64)  # seconds from there to the end

    def first_token(self, attempt: Attempt) -> None:
        """Take down how long it took, and when it will end."""
        one = self._current(attempt)
        super().first_token(attempt)
        if one is not None:
            now = self._clock.now
            self._prompts.append(now - one.outcome.arrived)
            heappush(self._ends, now + _mean(self._answers))

    def ended(self, attempt: Attempt) -> None:
        """Take down how long its answer took."""
        one = self._current(attempt)
        if one is not None and one.outcome.first is not None:
            self._answers.append(self._clock.now - one.outcome.first)
        super().ended(attempt)

    def load(self) -> float:
        """Those that decode, and those on their way, without those that will have ended."""
        now, then = self._clock.now, self._clock.now + _mean(self._prompts)
        while self._ends and self._ends[0] <= now:
            heappop(self._ends)
        ending = sum(1 for at in self._ends if at <= then)
        return float(len(self) - ending)


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values) if values else 0.0
