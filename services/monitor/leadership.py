"""Which monitor leads: one lease for all of them. Sends a Pulse with each confirmation, and with nothing else.

Workers take a Pulse as the word that Redis was well just now (see shared/tenure.py), so it follows a confirmation at
once and is never sent on the strength of an older one.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from shared.errors import BatonError, Unavailable
from shared.leases import Confirmed, Lease, Taken, open_lease_client
from shared.lifecycle import Instance
from shared.messages import Epoch, Pulse

NAME: Final = "_leader"
"""Of the leader's lease; no instance can have it, for their names begin with a letter or digit."""

log = logging.getLogger(__name__)


class Leadership:
    """The leader's lease, held or wanted. `gained` and `lost` are called on the loop, in turns."""

    def __init__(self, instance: Instance, *, gained: Callable[[Epoch], None], lost: Callable[[], None]) -> None:
        fleet = instance.config.fleet
        self._instance = instance
        self._client = open_lease_client(instance.config.redis, fleet.lease_ttl_s)
        self._lease = Lease(self._client, NAME, fleet.lease_ttl_s)
        self._every_s = fleet.lease_ttl_s / 3
        self._gained = gained
        self._lost = lost
        self._epoch: Epoch | None = None  # as told to `gained`; None: not leading
        self.pulses = 0

    @property
    def leading(self) -> bool:
        """Whether we may act now, on our own clock."""
        return self._epoch is not None and self._lease.held

    @property
    def owner(self) -> str:
        """Who we are in the leader's lease."""
        return self._lease.owner

    @property
    def epoch(self) -> Epoch:
        """Of our leadership; (0, 0) when we do not lead."""
        return self._epoch or (0, 0)

    async def outrank(self, epoch: Epoch) -> None:
        """Give the lease up and take it anew with a higher epoch than this one, seen in a map."""
        self._lease.saw(epoch)
        self._lose("a map has a later epoch")
        await self._lease.release()

    async def keep(self) -> None:
        """Take the lease, renew it, take it over when its holder dies. For ever."""
        while True:
            try:
                outcome = await self._lease.confirm()
            except Unavailable as error:
                log.warning("leadership not confirmed", extra={"error": str(error)})
                if not self._lease.held:
                    self._lose("it could not be confirmed")
            else:
                await self._confirmed(outcome)
            await asyncio.sleep(self._every_s)

    async def step_down(self) -> None:
        """Give the lease up, for another monitor to take at once."""
        self._lose("this monitor stops")
        await self._lease.release()
        await self._client.aclose()

    async def _confirmed(self, outcome: Confirmed | Taken) -> None:
        if isinstance(outcome, Taken):
            self._lose("another monitor leads")
            return
        if outcome.epoch != self._epoch:
            self._lose("the lease was made anew")
            self._epoch = outcome.epoch
            log.info("leading", extra={"epoch": outcome.epoch})
            self._gained(outcome.epoch)
        try:
            pulse = Pulse(self._instance.id, outcome.epoch)
            await self._instance.bus.publish(self._instance.subjects.pulse(), pulse, traced=False)
            self.pulses += 1
        except BatonError as error:
            log.debug("pulse not sent", extra={"error": str(error)})

    def _lose(self, why: str) -> None:
        if self._epoch is not None:
            self._epoch = None
            log.warning("not leading any more", extra={"why": why})
            self._lost()
