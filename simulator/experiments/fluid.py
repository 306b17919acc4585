"""A fleet's goodput as a fluid: what a group can do, min(n_p c_p, n_d c_d), against what comes to it.

P/D-Serve 1.2. For spans of which single requests are too many. It looks at maps and at who lives, so all that decides
and loads is as in any simulation; only the requests are not there. What waits for a moment and is served later counts
as lost, so short gaps cost more here than request by request.
"""

from shared.messages import GroupPhase, Role, ScenarioMap, Status
from simulator.cluster.decode import Decode
from simulator.cluster.prefill import Prefill
from simulator.cluster.simulation import Simulation
from simulator.cluster.worker import Worker


class Fluid:
    """Of all scenarios. `demand`: what comes to each, as a part of what its groups can do in full health."""

    def __init__(self, simulation: Simulation, demand: float) -> None:
        self.lost = 0.0  # of each scenario's offer, times seconds
        self._simulation = simulation
        self._demand = demand
        self._whole = {
            scenario.name: {group.name: (group.prefill, group.decode) for group in scenario.groups}
            for scenario in simulation.spec.scenarios
        }
        self._rates = dict.fromkeys(self._whole, 0.0)  # share of the offer that is lost now
        self._since = dict.fromkeys(self._whole, 0.0)
        simulation.bus.listen(self._hear)
        simulation.fallen.append(self.touch)
        simulation.thawed.append(self.touch)

    def _hear(self, message: Status | ScenarioMap) -> None:
        if isinstance(message, ScenarioMap):
            self._look(message.scenario)

    def touch(self, worker: Worker) -> None:
        """Look anew at where it works: it has become slower, or well, or is gone."""
        self._look(worker.scenario.name)

    def share(self) -> float:
        """Share of all that was offered so far that was lost."""
        for scenario in self._whole:
            self._look(scenario)
        return self.lost / len(self._whole) / self._simulation.clock.now

    def _look(self, scenario: str) -> None:
        now = self._simulation.clock.now
        self.lost += self._rates[scenario] * (now - self._since[scenario])
        self._since[scenario] = now
        self._rates[scenario] = max(0.0, 1.0 - self._capable(scenario) / self._demand)

    def _capable(self, scenario: str) -> float:
        """What its groups can do now, as a part of what they can in full health."""
        whole, able = self._whole[scenario], 0.0
        for group in self._simulation.map(scenario).groups:
            if group.phase is not GroupPhase.OPEN or group.name not in whole:
                continue
            prefill, decode = whole[group.name]
            serving = [(Role.PREFILL, one) for one in group.prefill] + [(Role.DECODE, one) for one in group.decode]
            parts = {Role.PREFILL: 0.0, Role.DECODE: 0.0}
            for role, one in serving:
                worker = self._simulation.workers.get(one.instance)
                if one.joined and worker is not None and worker.epoch == one.epoch:
                    parts[role] += speed(worker)
            able += min(parts[Role.PREFILL] / prefill, parts[Role.DECODE] / decode)
        return able / len(whole)


def speed(worker: Worker) -> float:
    """What an instance does now, as a part of what it should."""
    if not worker.up or worker.frozen:
        return 0.0
    slower = worker.batch.slower if isinstance(worker, Decode) else 1.0
    return 1.0 / (worker.slower if isinstance(worker, Prefill) else slower)
