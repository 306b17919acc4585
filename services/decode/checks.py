"""Link checks at decode: a prefill of the group wants to push one block of a pattern, to verify that it can.

Owns the answer, and the staging from the grant until the buffer has come, which is then freed at once. Takes no slot
and no block; a check is refused before it could be in a request's way.
"""

import logging
import time
from typing import Final

from services.decode.incoming import Member
from shared.bus import Delivery
from shared.errors import BatonError, Code
from shared.kv import Expected, KvReceiver
from shared.messages import KvGrant, LinkCheck, Rejected
from shared.policy.admission import Refused
from shared.worker.linking import check_id
from shared.worker.roster import Roster
from shared.worker.running import key_of
from shared.worker.standing import Standing

AT_ONCE: Final = 8
"""Checks granted and not over: a large group comes up by and by."""

log = logging.getLogger(__name__)


class LinkChecks:
    """Answers checks. One per decode."""

    def __init__(self, standing: Standing, roster: Roster[Member], receiver: KvReceiver) -> None:
        self._standing = standing
        self._roster = roster
        self._receiver = receiver
        self._open = 0

    def hear(self, delivery: Delivery, check: LinkCheck) -> None:
        """Answer a check at once."""
        refused = self._problem(check) or self._grant(delivery, check)
        if refused is not None:
            name = check_id(check.prefill, check.number)
            answer = Rejected(name, 0, self._standing.name, refused.code, refused.message[:500], refused.retryable)
            self._roster.reply(delivery, answer)

    def _problem(self, check: LinkCheck) -> Refused | None:
        standing, info = self._standing, self._standing.engine.info
        if why := standing.unready():
            return Refused(Code.DRAINING, f"{standing.name} takes nothing: {why}")
        if standing.peers.outdated(check.prefill, check.epoch):
            return Refused(Code.STALE, f"{check.prefill} speaks with an epoch it has lost")
        if check.fingerprint != info.fingerprint:
            return Refused(
                Code.KV_REFUSED, f"{standing.name} runs another model, KV layout or data type", retryable=False
            )
        if check.kv_bytes != info.kv_bytes(1):
            return Refused(Code.MALFORMED, f"a check is one block, {info.kv_bytes(1)} bytes", retryable=False)
        if self._open >= AT_ONCE:
            return Refused(Code.OVERLOADED, f"{AT_ONCE} checks are under way")
        return None

    def _grant(self, delivery: Delivery, check: LinkCheck) -> Refused | None:
        standing, name = self._standing, check_id(check.prefill, check.number)
        deadline_ms = int((time.time() + standing.fleet.push_timeout_s) * 1000)
        expected: Expected | None = None
        try:
            expected = self._receiver.expect(key_of(name, 0), check.kv_bytes, deadline_ms)
            grant = KvGrant(
                name, 0, standing.name, standing.epoch(), expected.ticket, self._receiver.endpoints, deadline_ms
            )
            _ = standing.tasks.spawn(self._receive(delivery, grant, expected), name=name)
        except BatonError as error:
            if expected is not None:
                expected.cancel()
            return Refused(error.code, str(error), retryable=error.retryable)
        self._open += 1
        return None

    async def _receive(self, delivery: Delivery, grant: KvGrant, expected: Expected) -> None:
        """Answer, let the buffer come, free it. A check that does not come ends at its deadline."""
        try:
            await self._roster.respond(delivery, grant)
            (await expected.received()).release()
        except BatonError as error:
            log.warning("a link check came to nothing", extra={"check": grant.request_id, "error": str(error)})
        finally:
            expected.cancel()
            self._open -= 1
