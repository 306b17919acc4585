"""Offers and cancellations on their way to the workers.

Owns the questions under way and how their answers are judged. Chooses nobody.
"""

import logging

from opentelemetry import trace
from opentelemetry.trace import Span

from shared.bus import Bus
from shared.errors import BatonError, TooLarge
from shared.failpoints import failpoint
from shared.messages import Accepted, Cancel, PrefillRequest, Rejected, Request
from shared.policy.dispatch_events import Event, OfferAccepted, OfferRejected, OfferUnanswered
from shared.policy.placement import FleetView
from shared.subjects import Subjects

log = logging.getLogger(__name__)


class Offers:
    """Speaks to prefills and decodes for one gateway."""

    def __init__(self, bus: Bus, subjects: Subjects, view: FleetView, timeout_s: float) -> None:
        self._bus = bus
        self._subjects = subjects
        self._view = view
        self._timeout_s = timeout_s

    async def ask(self, scenario: str, request: Request, instance: str, span: Span) -> Event:
        """Offer an attempt to one prefill; what came of it, always an event, never an exception."""
        key = (request.request_id, request.attempt, instance)
        try:
            with trace.use_span(span, end_on_exit=False, record_exception=False):
                answer: Accepted | Rejected = await self._bus.request(
                    self._subjects.prefill(scenario, instance),
                    PrefillRequest(request),
                    Accepted | Rejected,
                    timeout_s=self._timeout_s,
                    what="answer to an offer",
                )
            failpoint("gateway.offered")
        except TooLarge as error:
            return OfferRejected(*key, error.code, str(error), retryable=False)
        except BatonError as error:
            log.info("offer not answered", extra={"request": request.request_id, "to": instance, "why": str(error)})
            return OfferUnanswered(*key)
        if (answer.request_id, answer.attempt, answer.instance) != key:
            log.warning("answer to another offer", extra={"request": request.request_id, "from": instance})
            return OfferUnanswered(*key)
        if isinstance(answer, Rejected):
            return OfferRejected(*key, answer.code, answer.message, retryable=answer.retryable)
        if not self._view.current(instance, answer.epoch):
            log.warning("offer answered by an older epoch", extra={"request": request.request_id, "from": instance})
            return OfferUnanswered(*key)
        return OfferAccepted(*key)

    async def withdraw(self, scenario: str, request_id: str, attempt: int) -> None:
        """Tell every worker of the scenario; one that does not hear it ends the attempt when it expires."""
        try:
            await self._bus.publish(self._subjects.cancel(scenario), Cancel(request_id, attempt))
        except BatonError as error:
            log.info("cancel not sent", extra={"request": request_id, "why": str(error)})
