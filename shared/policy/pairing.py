"""Pairs requests that wait with workers that have room: who goes first, and where to.

Owns how far it looks into the wait. Changes nothing but whom a request avoids.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from shared.messages import Role
from shared.policy.attempts import OpenRequest
from shared.policy.book import Book
from shared.policy.dispatch_events import DispatchRules
from shared.policy.local_prefill import LocalPrefill
from shared.policy.placement import FleetView
from shared.policy.routes import Choice, Routes
from shared.policy.suspects import Suspects

SCAN: Final = 256
"""Waiting requests passed over for one that may go where there is room, where groups are not all alike."""

Pair = tuple[OpenRequest, Choice]


class Pairing:
    """Asks the routes for the first requests of a scenario's wait."""

    def __init__(self, view: FleetView, book: Book, suspects: Suspects, routes: Routes, rules: DispatchRules) -> None:
        self._view = view
        self._book = book
        self._suspects = suspects
        self._routes = routes
        self._local = LocalPrefill(view, book, routes)
        self._lookahead = rules.lookahead

    def choose(self, scenario: str, now: float) -> Pair | None:
        """Pair the first request that suits with the worker that suits it best."""
        if not len(self._book.waiting[scenario]):
            return None
        pair = self._with_prefill(scenario, now) or self._with_decode(scenario, now)
        if pair is not None:
            self._routes.took(*pair)
        return pair

    def _waiting(self, scenario: str, now: float) -> Iterator[OpenRequest]:
        for request in self._book.waiting[scenario].order(now):
            if not (request.suspect and self._suspects.waits(request)):
                yield request

    def _with_prefill(self, scenario: str, now: float) -> Pair | None:
        """Find the first request for which a prefill has room.

        A request that was rejected or failed by a worker lets another one go first there, once: so it neither blocks
        the wait with what that worker cannot take, nor starves.
        """
        if self._view.candidates.first(scenario, Role.PREFILL, "", ()) is None:
            return None
        full: set[tuple[str, int | None]] = set()  # kinds of requests that find no room now
        passed: list[Pair] = []
        alike = self._routes.parted(scenario) is None
        for request in islice(self._waiting(scenario, now), self._lookahead if alike else SCAN):
            if len(passed) >= self._lookahead:
                break
            if not alike and self._routes.kind(request) in full:
                continue
            choice = self._routes.pick(request, request.avoid)
            if choice is not None:
                for other, _ in passed:
                    other.avoid -= {choice.instance}
                return request, choice
            again = self._routes.pick(request) if request.avoid else None
            if again is not None:
                passed.append((request, again))
            else:
                full.add(self._routes.kind(request))
        return passed[0] if passed else None

    def _with_decode(self, scenario: str, now: float) -> Pair | None:
        """Find a short prompt that a decode may compute, since no prefill is free or all have refused."""
        if not self._routes.rules(scenario).local_tokens:
            return None
        for request in islice(self._waiting(scenario, now), self._lookahead):
            if (choice := self._local.choose(request)) is not None:
                return request, choice
        return None
