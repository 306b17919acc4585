"""What becomes of a simulation's requests, counted for the monitor as gateways count it: by scenario and group.

Owns the counters, of all gateways together; the monitor adds them up in any case. A request counts for a group when it
has ended, its first token too; a gateway counts that at once, so the monitor here learns of it later by a decoding.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from shared.messages import FRACTIONS, Epoch, Traffic
from shared.policy.steering.served import Served
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import ScenarioSpec
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival

MICRO: Final = 1_000_000
GATEWAYS: Final = "gateways"


class ScenarioTraffic:
    """The requests of one scenario."""

    def __init__(self, scenario: ScenarioSpec) -> None:
        self.arrived = self.refused = self.prompt_tokens = 0
        self.groups: defaultdict[str, Served] = defaultdict(Served)
        self._ttft_s, self._tpot_s = scenario.ttft_s, scenario.tpot_s

    def end(self, outcome: Outcome, group: str) -> None:
        """Count a request that has ended; `group` is that of the worker that had it last."""
        if not outcome.attempts:
            self.refused += not outcome.ok
            return
        served = self.groups[group]
        served.failed += outcome.attempts - outcome.ok
        if outcome.ttft is not None:
            served.ttft[bisect_left(FRACTIONS, outcome.ttft / self._ttft_s)] += 1
            served.ttft_us += int(outcome.ttft * MICRO)
        if not outcome.ok or outcome.first is None:
            return
        served.finished += 1
        served.tokens += outcome.tokens
        served.prefill_us += int(outcome.prefilled * MICRO)
        served.e2e_us += int((outcome.ended - outcome.first + outcome.prefilled) * MICRO)
        if outcome.tpot is not None:
            served.tpot[bisect_left(FRACTIONS, outcome.tpot / self._tpot_s)] += 1


class TrafficBook:
    """Of all scenarios."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._of = {one.name: ScenarioTraffic(one) for one in simulation.spec.scenarios}
        self._number = 0
        simulation.arrived.append(self._arrive)
        simulation.ended.append(self._end)

    def _arrive(self, arrival: Arrival) -> None:
        counts = self._of[arrival.scenario]
        counts.arrived += 1
        counts.prompt_tokens += arrival.input_tokens

    def _end(self, outcome: Outcome) -> None:
        worker = self._simulation.workers.get(outcome.decode or outcome.prefill)
        self._of[outcome.arrival.scenario].end(outcome, worker.group if worker is not None else "main")

    def messages(self, epoch: Epoch) -> list[Traffic]:
        """Say how far all scenarios are."""
        self._number += 1
        return [self._message(name, counts, epoch) for name, counts in self._of.items()]

    def _message(self, name: str, counts: ScenarioTraffic, epoch: Epoch) -> Traffic:
        deciders = [gateway.dispatcher for gateway in self._simulation.gateways]
        groups = [one.told(group) for group, one in counts.groups.items()]
        return Traffic(
            GATEWAYS,
            epoch,
            name,
            self._number,
            counts.arrived,
            counts.refused,
            counts.prompt_tokens,
            sum(one.waiting(name) for one in deciders),
            sum(one.open_of(name) for one in deciders),
            groups,
        )
