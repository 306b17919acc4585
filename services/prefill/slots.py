"""The slots of a prefill worker: an offer gets one at once or is refused at once. There is no queue.

Owns what a held slot consists of: a place counted by the admission and the staging its KV buffer will fill. A slot is
freed when the KV has left or the attempt ended, whichever comes first.
"""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from opentelemetry.context import Context

from shared.bus import Delivery, extract
from shared.errors import BatonError, Code, MalformedMessage
from shared.kv import Staging
from shared.messages import Accepted, PrefillRequest, Request, ToPrefill, decode
from shared.policy.admission import PrefillAdmission, Refused
from shared.worker.prompting import unfit
from shared.worker.roster import Roster
from shared.worker.running import Running, left_s
from shared.worker.standing import Standing
from shared.worker.work import Stint

log = logging.getLogger(__name__)


class Slot(Running):
    """An accepted attempt with the staging that is reserved for its KV buffer."""

    def __init__(self, request: Request, answer: Accepted, staging: Staging, context: Context, stint: Stint) -> None:
        super().__init__(request, answer)
        self.stint = stint
        self.staging = staging
        self.context = context
        self.computing = False
        self.ended = False  # Finished was sent, or a decode has the KV: no ending is owed


class Slots:
    """Hears offers, answers them, and starts what is accepted."""

    def __init__(
        self,
        standing: Standing,
        roster: Roster[Slot],
        admission: PrefillAdmission,
        carry: Callable[[Slot, Delivery], Coroutine[Any, Any, None]],
    ) -> None:
        self._standing = standing
        self._info = standing.engine.info
        self._roster = roster
        self._admission = admission
        self._carry = carry

    def hear(self, delivery: Delivery) -> None:
        """Answer an offer. Waits for nothing."""
        try:
            message: PrefillRequest = decode(delivery.data, ToPrefill, "prefill request")
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        request = message.request
        held = self._roster.get(request.request_id, request.attempt)
        if held is not None:
            self._roster.reply(delivery, held.answer)
            return
        refused = self._problem(request) or self._admit(delivery, request)
        if refused is not None:
            self._roster.reject(delivery, request, refused.code, refused.message, retryable=refused.retryable)

    def _problem(self, request: Request) -> Refused | None:
        """What is wrong with a request, whatever room there is."""
        if why := self._standing.unready():
            return Refused(Code.DRAINING, f"{self._roster.name} takes nothing: {why}")
        return unfit(request, self._info)

    def _admit(self, delivery: Delivery, request: Request) -> Refused | None:
        kv_bytes, now = self._info.kv_bytes(request.n_tokens), time.monotonic()
        verdict = self._admission.offer(
            request.request_id,
            request.attempt,
            kv_bytes=kv_bytes,
            deadline=now + left_s(request.deadline_ms),
            now=now,
        )
        if isinstance(verdict, Refused):
            return verdict
        if verdict.repeated:  # those that are in were answered before it came to this
            return Refused(Code.STALE, "the attempt is leaving")
        self._roster.supersede(request, verdict.supersedes)
        return self._enter(delivery, request, kv_bytes)

    def _enter(self, delivery: Delivery, request: Request, kv_bytes: int) -> Refused | None:
        accepted = Accepted(request.request_id, request.attempt, self._roster.name, self._standing.epoch())
        staging: Staging | None = None
        try:
            staging = self._standing.arena.reserve(kv_bytes)
            slot = Slot(request, accepted, staging, extract(delivery), Stint(self._standing.work))
            self._roster.enter(slot, lambda entered: self._carry(entered, delivery))
        except BatonError as error:
            if staging is not None:
                staging.release()
            self._admission.left(request.request_id, request.attempt)
            return Refused(error.code, str(error), retryable=error.retryable)
        return None
