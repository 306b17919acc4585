"""Asks the workers for a stream: whoever has it stops, and tells how far it came.

Owns the questions under way. Chooses the newest attempt of what it is told; judges nothing else.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from shared.bus import Bus, Delivery
from shared.errors import BatonError, MalformedMessage
from shared.messages import Claim, Claimed, Claims, decode
from shared.policy.placement import FleetView
from shared.subjects import Subjects
from shared.tasks import happens

TRIES: Final = 2
"""A claim or an answer to it may be lost."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Told:
    """What came of one claim."""

    awaited: set[str]  # workers that have not said that they are through
    newest: dict[str, Claimed] = field(default_factory=dict)  # by request id
    through: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, delivery: Delivery) -> None:
        """Take in an answer; anything else says nothing."""
        try:
            message: Claimed | Claims = decode(delivery.data, Claimed | Claims, "answer to a claim")
        except MalformedMessage as error:
            log.warning("an answer to a claim was refused", extra={"error": str(error)})
            return
        if isinstance(message, Claimed):
            request = message.request
            known = self.newest.get(request.request_id)
            if known is None or _age(message) > _age(known):
                self.newest[request.request_id] = message
            return
        self.awaited.discard(message.instance)
        if not self.awaited:
            self.through.set()


def _age(claimed: Claimed) -> tuple[int, int]:
    return claimed.request.attempt, claimed.request.n_tokens


class Claimant:
    """One per gateway."""

    def __init__(self, gateway: str, bus: Bus, subjects: Subjects, view: FleetView, timeout_s: float) -> None:
        self._gateway = gateway
        self._bus = bus
        self._subjects = subjects
        self._view = view
        self._timeout_s = timeout_s

    async def claim(self, scenario: str, tenant: str, request_ids: list[str]) -> dict[str, Claimed]:
        """Take over what the workers have of these requests of a tenant; those that nobody has are missing.

        Raises LinkLost, Overloaded.
        """
        told = _Told(self._workers(scenario))
        await self._ask(scenario, Claim(request_ids, self._gateway, tenant), told, TRIES)
        return told.newest

    async def look(self, scenario: str, held: dict[str, str]) -> tuple[dict[str, Claimed], bool]:
        """Ask what became of requests of our own, by who should have them; and whether everybody has answered.

        Raises LinkLost, Overloaded.
        """
        told = _Told(self._workers(scenario) | set(held.values()))
        await self._ask(scenario, Claim(list(held), self._gateway, look=True), told, 1)
        return told.newest, told.through.is_set()

    def _workers(self, scenario: str) -> set[str]:
        return set(self._view.members(scenario, time.monotonic()))

    async def _ask(self, scenario: str, claim: Claim, told: _Told, tries: int) -> None:
        inbox = self._bus.inbox()
        subscription = await self._bus.subscribe(inbox, told.take)
        try:
            for _ in range(tries):
                await self._bus.publish(self._subjects.claim(scenario), claim, reply=inbox)
                if await happens(told.through, self._timeout_s):
                    break
        finally:
            try:
                await subscription.stop()
            except BatonError as error:
                log.debug("an inbox was not closed", extra={"error": str(error)})
