"""Asks NATS whether a worker that has fallen silent is still there: one that died has no subscription any more.

Owns the questions. Whom to ask and what the answer means is decided in `shared.policy.probing`. A killed worker is
missed in a third of a second that way, long before its heartbeats are.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from typing import Final

from shared.bus import NO_RESPONDERS, Bus, Delivery
from shared.errors import BatonError
from shared.policy.probing import Probing
from shared.policy.world import NobodyThere
from shared.subjects import Subjects

LOOK_S: Final = 0.05

log = logging.getLogger(__name__)


class PresenceProbes:
    """One per gateway. `run` is a task of its owner."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        probing: Probing,
        *,
        holding: Callable[[], Collection[str]],
        tell: Callable[[NobodyThere], None],
        look: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._probing = probing
        self._holding = holding
        self._tell = tell
        self._look = look  # whether the bus itself was away, which decides what NATS' word means
        self._inbox = bus.inbox()

    async def open(self, stack: AsyncExitStack) -> None:
        """Listen for what NATS says."""
        subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_word)
        stack.push_async_callback(subscription.stop)

    def _on_word(self, delivery: Delivery) -> None:
        self._look()
        if not delivery.data and delivery.headers.get("Status") == NO_RESPONDERS:
            self._tell(NobodyThere(delivery.subject.rpartition(".")[2]))

    async def run(self) -> None:
        """Ask whenever one that holds something is silent, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._look()
            for instance in self._probing.due(time.monotonic(), self._holding()):
                try:
                    await self._bus.publish(
                        self._subjects.presence(instance), b"", reply=f"{self._inbox}.{instance}", traced=False
                    )
                except BatonError as error:
                    log.debug("not asked", extra={"instance": instance, "why": str(error)})
                    break
