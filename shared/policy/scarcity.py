"""Which scenarios have no worker at all, and for how long: a substitute needs a moment, and a caller a word."""

from shared.policy.deadlines import Deadlines
from shared.policy.dispatch_events import DispatchRules


class Scarcity:
    """Knows since when a scenario has nobody to ask, and when to stop hoping."""

    def __init__(self, rules: DispatchRules) -> None:
        self._rules = rules
        self._since: dict[str, float] = {}
        self.turns: Deadlines[str] = Deadlines()

    def note(self, scenario: str, now: float, *, exists: bool) -> None:
        """Take down whether there is a worker now."""
        if exists:
            if self._since.pop(scenario, None) is not None:
                self.turns.drop(scenario)
        elif scenario not in self._since:
            self._since[scenario] = now
            self.turns.set(scenario, now + self._rules.grace_s)

    def hopeless(self, scenario: str, now: float, *, resumed: bool) -> bool:
        """Whether a request need not wait any longer; one that had a worker before is given more time."""
        since = self._since.get(scenario)
        if since is None:
            return False
        return now >= since + (self._rules.replay_grace_s if resumed else self._rules.grace_s)

    def due(self, now: float) -> list[str]:
        """Name the scenarios for which `hopeless` has just changed."""
        due = self.turns.due(now)
        for scenario in due:
            later = self._since[scenario] + self._rules.replay_grace_s
            if later > now:
                self.turns.set(scenario, later)
        return due

    def next_deadline(self) -> float | None:
        """Say when `due` has something next."""
        return self.turns.next()
