"""Which parallel strategy is asked first, where a scenario has instances of several: measured here, each second.

Owns one set of bands a scenario. The speed of a stream is this gateway's own, the number of streams is the fleet's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.gateway.relay.record import Record
from shared.config import ScenarioSettings
from shared.policy.dispatch import Dispatcher
from shared.policy.placement import FleetView
from shared.policy.steering.bands import Bands


@dataclass(slots=True)
class _Scenario:
    bands: Bands
    at: float = 0.0  # of the last look


class Strategies:
    """One per gateway."""

    def __init__(self, scenarios: Mapping[str, ScenarioSettings], view: FleetView, dispatcher: Dispatcher) -> None:
        self._view = view
        self._dispatcher = dispatcher
        self._scenarios: dict[str, _Scenario] = {}
        for name, settings in scenarios.items():
            ranges = {
                one.strategy: (one.streams_from, one.streams_below) for one in settings.group.values() if one.strategy
            }
            if ranges:
                self._scenarios[name] = _Scenario(Bands(ranges))

    def look(self, records: Iterable[tuple[str, Record]], now: float) -> None:
        """Measure the streams since the last look, and say whom to ask first. `records`: open ones by scenario."""
        if not self._scenarios:
            return
        streams: dict[str, Counter[str]] = {name: Counter() for name in self._scenarios}
        tokens: dict[str, Counter[str]] = {name: Counter() for name in self._scenarios}
        for scenario, record in records:
            if scenario not in self._scenarios or not record.begun_at:
                continue
            if record.counted >= 0:  # it ran all the time
                strategy = self._strategy(scenario, record.group)
                streams[scenario][strategy] += 1
                tokens[scenario][strategy] += record.expected - record.counted
            record.counted = record.expected
        for name in self._scenarios:
            self._measure(name, streams[name], tokens[name], now)

    def _measure(self, name: str, streams: Counter[str], tokens: Counter[str], now: float) -> None:
        scenario = self._scenarios[name]
        elapsed_s, scenario.at = now - scenario.at, now
        everywhere = self._used(name)
        for strategy, own in streams.items():
            there = max(own, everywhere[strategy])
            speed = tokens[strategy] / own / elapsed_s
            scenario.bands.observe(strategy, there, speed * there, now)
        total = max(self._dispatcher.open_of(name), sum(everywhere.values()))
        self._dispatcher.prefer(name, scenario.bands.prefer(total, now))

    def _used(self, scenario: str) -> Counter[str]:
        """Count the streams that the workers of each strategy hold, whichever gateway's they are."""
        used: Counter[str] = Counter()
        for group, streams in self._view.streams(scenario).items():
            used[self._strategy(scenario, group)] += streams
        return used

    def _strategy(self, scenario: str, group: str) -> str:
        known = self._view.candidates.groups(scenario).get(group)
        return "" if known is None else known.strategy
