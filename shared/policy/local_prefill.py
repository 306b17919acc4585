"""Short prompts that a decode computes itself, where no prefill has room: a hand-off saved, and a wait.

Owns which requests may and where. Each decode gives a share of its slots at most, so that the streams that it has go
on; its own answer decides, as everywhere.
"""

from collections.abc import Collection
from typing import Final

from shared.messages import Role
from shared.policy.admission import LOCAL_ONE_IN
from shared.policy.attempts import OpenRequest
from shared.policy.book import Book
from shared.policy.placement import FleetView
from shared.policy.pool import Standing, Tier
from shared.policy.routes import Choice, Routes

TRIES: Final = 4
"""Decodes looked at for one request."""
LOCAL: Final = "local"


class LocalPrefill:
    """Asked only when no prefill is free."""

    def __init__(self, view: FleetView, book: Book, routes: Routes) -> None:
        self._view = view
        self._book = book
        self._routes = routes

    def choose(self, request: OpenRequest) -> Choice | None:
        """Choose a decode for a prompt that is short, or nearly all of which that decode has in its cache."""
        limit = self._routes.rules(request.scenario).local_tokens
        if not limit or request.begun:  # what it has grown by since is not known here
            return None
        if request.tokens < limit:
            # one that refused or failed it comes after the others, but it comes: there may be nobody else
            return self._idlest(request, request.avoid) or (self._idlest(request, ()) if request.avoid else None)
        for known in self._routes.affinity.known(request.scenario, request.prefix):
            if request.tokens - known.tokens >= limit:
                return None  # those that follow know less
            standing = self._view.candidates.standing(request.scenario, Role.DECODE, known.instance)
            if standing is not None and standing.instance not in request.avoid and self._has_room(standing):
                return Choice(known.instance, f"{LOCAL}, prefix {known.tokens}", local=True)
        return None

    def _idlest(self, request: OpenRequest, avoid: Collection[str]) -> Choice | None:
        passed = set(avoid)
        for _ in range(TRIES):
            first = self._view.candidates.first(request.scenario, Role.DECODE, "", passed)
            if first is None:
                return None
            if self._has_room(first):
                return Choice(first.instance, LOCAL, local=True)
            passed.add(first.instance)
        return None

    def _has_room(self, decode: Standing) -> bool:
        most = max(1, self._view.slots(decode.instance) // LOCAL_ONE_IN)
        return decode.tier is Tier.FREE and self._book.local[decode.instance] < most
