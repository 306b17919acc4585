"""How many requests may leave a worker only because it stands still: a bound on what a sick fleet is asked to do twice.

Owns the charges. A worker that stands still may go on later, or compute all the same, so each such move may cost the
fleet the same work again. One frozen worker of two is covered in full; a fleet that is slow as a whole is not flooded.
"""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from shared.policy.dispatch_events import DispatchRules


@dataclass(eq=False, slots=True)
class Charge:
    """One move within the window."""

    at: float
    scenario: str
    request_id: str
    instance: str  # that was left
    counts: bool = True


class HedgeBudget:
    """Charges each move to its scenario until the window has passed, or until the move is known to have been right."""

    def __init__(self, rules: DispatchRules) -> None:
        self._rules = rules
        self._charges: deque[Charge] = deque()  # oldest first
        self._counted: Counter[str] = Counter()  # by scenario
        self._of: defaultdict[str, deque[Charge]] = defaultdict(deque)  # by request
        self._left: defaultdict[str, deque[Charge]] = defaultdict(deque)  # by instance

    def take(self, scenario: str, request_id: str, instance: str, open_requests: int, now: float) -> bool:
        """Charge a move of a request away from an instance; False: no more of them now."""
        self._expire(now)
        most = max(self._rules.min_hedges, int(self._rules.hedge_share * open_requests))
        if self._counted[scenario] >= most:
            return False
        charge = Charge(now, scenario, request_id, instance)
        self._charges.append(charge)
        self._counted[scenario] += 1
        self._of[request_id].append(charge)
        self._left[instance].append(charge)
        return True

    def lost(self, instance: str) -> None:
        """Return what was charged for leaving an instance that is gone."""
        for charge in self._left.get(instance, ()):
            self._return(charge)

    def went_on(self, request_id: str) -> None:
        """Return the charge of a request that got a token again: once in a window.

        Where tokens come so slowly that it moves twice, moving gains nothing, and the second charge stays.
        """
        charges = self._of.get(request_id)
        if charges is not None and len(charges) == 1:
            self._return(charges[0])

    def _return(self, charge: Charge) -> None:
        if charge.counts:
            charge.counts = False
            self._counted[charge.scenario] -= 1

    def _expire(self, now: float) -> None:
        while self._charges and self._charges[0].at <= now - self._rules.hedge_window_s:
            charge = self._charges.popleft()
            self._return(charge)
            for charges, key in ((self._of, charge.request_id), (self._left, charge.instance)):
                charges[key].popleft()  # the oldest of all is the oldest here
                if not charges[key]:
                    del charges[key]
