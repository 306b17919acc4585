"""Figures over time: the same requests, by windows of equal length."""

from collections.abc import Callable
from dataclasses import dataclass

from simulator.measures.outcome import Outcome
from simulator.measures.tally import NONE, Objectives

Points = list[list[float]]
"""Of a chart's line: the middle of a window in seconds, and the value."""


@dataclass(slots=True)
class Window:
    """What arrived in it, whenever it ended; `finished` and `tokens` are of those that ended in it."""

    arrived: int = 0
    ok: int = 0
    met: int = 0
    prefilled: float = 0.0  # seconds together, of those that had a first token, as are the next two
    ttft: float = 0.0
    first: int = 0  # had one
    e2e: float = 0.0  # of those that ended well
    finished: int = 0
    tokens: int = 0


class Series:
    """Hears of outcomes, of all or of one scenario's. A window without arrivals has no share and no mean."""

    def __init__(self, width: float, objectives: Objectives = NONE, scenario: str | None = None) -> None:
        self.width = width
        self._objectives = objectives
        self._scenario = scenario
        self.windows: list[Window] = []

    def __call__(self, outcome: Outcome) -> None:
        """Look at one that has ended."""
        if self._scenario is not None and outcome.arrival.scenario != self._scenario:
            return
        window = self._at(outcome.arrived)
        window.arrived += 1
        if outcome.first is not None:
            window.first += 1
            window.ttft += outcome.first - outcome.arrived
            window.prefilled += outcome.prefilled
        end = self._at(outcome.ended)
        end.tokens += outcome.tokens
        if outcome.code is None:
            window.ok += 1
            window.e2e += outcome.ended - outcome.arrived
            window.met += outcome.meets(self._objectives.ttft, self._objectives.tpot)
            end.finished += 1

    def _at(self, moment: float) -> Window:
        index = int(moment / self.width)
        while len(self.windows) <= index:
            self.windows.append(Window())
        return self.windows[index]

    def points(self, of: Callable[[Window], float], *, every: bool = False) -> Points:
        """A value of each window that had arrivals, or of every one."""
        return [
            [(index + 0.5) * self.width, of(window)]
            for index, window in enumerate(self.windows)
            if every or window.arrived
        ]

    def load(self) -> Points:
        """Requests that arrived per second."""
        return self.points(lambda window: window.arrived / self.width, every=True)

    def success(self) -> Points:
        """Share of the arrived that ended well."""
        return self.points(lambda window: window.ok / window.arrived)

    def attainment(self) -> Points:
        """Share of the arrived that met the objectives."""
        return self.points(lambda window: window.met / window.arrived)

    def goodput(self) -> Points:
        """Requests per second that arrived then and met the objectives."""
        return self.points(lambda window: window.met / self.width, every=True)

    def throughput(self) -> Points:
        """Requests per second that ended well then."""
        return self.points(lambda window: window.finished / self.width, every=True)

    def tokens(self) -> Points:
        """Tokens per second of the requests that ended then."""
        return self.points(lambda window: window.tokens / self.width, every=True)

    def ttft(self) -> Points:
        """Mean seconds to the first token; 0 where none had one."""
        return self.points(lambda window: window.ttft / (window.first or 1))

    def e2e(self) -> Points:
        """Mean seconds until it was over, of those that ended well; 0 where none did."""
        return self.points(lambda window: window.e2e / (window.ok or 1))
