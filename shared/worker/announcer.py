"""Tells the fleet of a freed slot at once: requests wait at gateways for it. Several in one turn are one message."""

import logging

from shared.errors import BatonError
from shared.instance import Instance

log = logging.getLogger(__name__)


class Announcer:
    """Call it whenever room came free."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._due = False

    def __call__(self) -> None:
        """Publish a Status soon."""
        if self._due:
            return
        try:
            _ = self._instance.tasks.spawn(self._announce(), name="announce")
        except BatonError as error:  # closing: the last status is the lifecycle's
            log.debug("not announced", extra={"error": str(error)})
            return
        self._due = True

    async def _announce(self) -> None:
        self._due = False
        await self._instance.announce()
