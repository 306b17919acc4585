"""The NATS library's client, repaired where Baton's promises need it. Each repair says what it repairs.

Written against nats-py 2.16; `tests/contract/test_nats_bus.py` shows when a new version behaves otherwise.
"""

import asyncio
import time

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout


class RepairedClient(Client):
    """nats.aio.client.Client, with these differences."""

    async def flush(self, timeout: float = 10) -> None:  # noqa: ASYNC109  # the library's name
        """Return once the server has all that was sent before.

        The library writes the ping past the commands that wait to be sent, so its answer may come before the server
        has them: a subscription that was flushed would still miss messages, and a drained one would lose its last.
        """
        deadline = time.monotonic() + timeout
        await self._flush_pending()
        await asyncio.sleep(0)  # the flusher's turn
        while self.pending_data_size > 0 and self.is_connected:
            if time.monotonic() > deadline:
                raise NatsTimeout
            await asyncio.sleep(0.001)
        await super().flush(timeout)  # type: ignore[arg-type]  # a number of seconds

    async def close(self) -> None:
        """Close for good; the library's own gives up half way when the socket breaks meanwhile."""
        try:
            await super().close()
        finally:
            for subscription in self._subs.values():
                subscription._stop_processing()  # noqa: SLF001  # what the library would have come to
            self._subs.clear()
            self.hang_up()

    def hang_up(self) -> None:
        """Close the socket of a sign-in that was refused; the library only forgets it."""
        if self._transport is not None and not self.is_connected:
            self._transport.close()  # type: ignore[no-untyped-call]
