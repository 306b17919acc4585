"""A gateway of the old design, as a baseline: it counts a prefill's streams until their last token, not its slots.

P/D-Serve's first version chose the prefill with the fewest open SSE connections, and those cover decode, too. With so
many slots at a prefill that it never refuses, its requests queue there. Run as `python -m bench.fleet.old_gateway`.
"""

import sys

from services.gateway.service import Gateway
from shared.lifecycle import main
from shared.policy import dispatch
from shared.policy.attempts import OpenRequest
from shared.policy.book import Book
from shared.policy.dispatch_events import DispatchRules
from shared.policy.placement import FleetView


class CountsToTheEnd(Book):
    """The book of requests, with each counted at its prefill for as long as its stream is open."""

    def __init__(self, view: FleetView, rules: DispatchRules) -> None:
        super().__init__(view, rules)
        self._prefills: dict[str, str] = {}  # by request: where the streams that decode came from

    def hand_off(self, request: OpenRequest, decode: str, now: float) -> None:
        """Go on counting it at its prefill."""
        if not request.decoding:
            self._prefills[request.request_id] = request.instance
            self._view.dispatched(request.instance)  # what the hand-off takes away
            self._view.accepted(request.instance)
        super().hand_off(request, decode, now)

    def close(self, request: OpenRequest) -> None:
        """Count it no longer."""
        super().close(request)
        if prefill := self._prefills.pop(request.request_id, None):
            self._view.settled(prefill)


if __name__ == "__main__":
    dispatch.Book = CountsToTheEnd  # type: ignore[misc]  # the one difference
    sys.exit(main(Gateway))
