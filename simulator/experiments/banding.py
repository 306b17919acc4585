"""Which strategy a simulated gateway asks first: measured each second with the real policy, as the gateway does it.

Owns what was counted at the last look. See `services.gateway.strategies`, which this does in simulated time.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from shared.policy.steering.bands import Bands
from simulator.cluster.simulation import Simulation

LOOK_S: Final = 1.0


class Banding:
    """Of one scenario of one simulation. `ranges`: as `Bands` takes them; (0, 0): learnt."""

    def __init__(self, simulation: Simulation, scenario: str, ranges: Mapping[str, tuple[int, int]]) -> None:
        self.bands = Bands(ranges)
        self._simulation = simulation
        self._scenario = scenario
        self._strategies = {group.name: group.strategy for group in simulation.map(scenario).groups}
        self._tokens: Counter[str] = Counter()  # generated so far, by strategy
        self._look()

    def _look(self) -> None:
        """Measure what each strategy did since the last look, and say whom to ask first."""
        now, streams, tokens = self._simulation.clock.now, Counter[str](), Counter[str]()
        for name, decode in self._simulation.decodes.items():
            strategy = self._strategies[self._simulation.workers[name].group]
            streams[strategy] += len(decode.batch)
            tokens[strategy] += decode.batch.tokens
        for strategy, number in streams.items():
            if number:
                self.bands.observe(strategy, number, (tokens[strategy] - self._tokens[strategy]) / LOOK_S, now)
        self._tokens = tokens
        dispatcher = self._simulation.gateways[0].dispatcher
        total = max(dispatcher.open_of(self._scenario), sum(streams.values()))
        dispatcher.prefer(self._scenario, self.bands.prefer(total, now))
        self._simulation.clock.after(LOOK_S, self._look)
