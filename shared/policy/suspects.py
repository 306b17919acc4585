"""Which request is to blame when workers die: one that kills what computes it is told from those that were beside it.

Owns who is suspected. The only one that died with two workers is condemned. Where several did, each goes on by itself:
one suspect of a scenario is out at a time, until it has gone on well for a while; if its worker dies too, it was that.
"""

from collections import defaultdict

from shared.policy.attempts import OpenRequest, Phase
from shared.policy.dispatch_events import DispatchRules


class Suspects:
    """Hears who fell with which worker; says who may be offered."""

    def __init__(self, rules: DispatchRules) -> None:
        self._rules = rules
        self._of: defaultdict[str, dict[str, OpenRequest]] = defaultdict(dict)  # by scenario and request

    def died(self, fallen: list[OpenRequest], instance: str, now: float) -> None:
        """Blame those that were held by a worker that died: `condemned` or suspected, or neither yet."""
        guilty: list[OpenRequest] = []
        for request in fallen:
            request.died_with(instance, now, self._rules)
            if len(request.deaths) >= self._rules.poison:
                guilty.append(request)
        for request in guilty:
            if len(guilty) == 1 or request.suspect:
                request.condemned = True
            else:
                request.suspect = True
                self._of[request.scenario][request.request_id] = request

    def waits(self, request: OpenRequest) -> bool:
        """Whether it must wait until another suspect has gone on well, or not."""
        if not request.suspect:
            return False
        return any(one.phase is not Phase.WAITING for one in self._of[request.scenario].values())

    def forget(self, request: OpenRequest) -> None:
        """Note that a request is over."""
        if request.suspect:
            suspects = self._of[request.scenario]
            suspects.pop(request.request_id, None)
            if not suspects:
                del self._of[request.scenario]

    def acquit(self, now: float) -> bool:
        """Clear whoever has gone on well for long enough; whether there was one."""
        if not self._of:
            return False
        clear = [one for one in self._out() if one.since + self._rules.trial_s <= now]
        for request in clear:
            self.forget(request)
            request.suspect = False
            request.deaths = frozenset()
        return bool(clear)

    def next_deadline(self) -> float | None:
        """Say when the next one may be cleared."""
        if not self._of:
            return None
        return min((one.since + self._rules.trial_s for one in self._out()), default=None)

    def _out(self) -> list[OpenRequest]:
        """Suspects at a decode, in an attempt that brought a token."""
        everybody = (one for suspects in self._of.values() for one in suspects.values())
        return [one for one in everybody if one.phase is Phase.HELD and one.decoding and one.progress]
