"""Asks the provisioner for instances and gives them back. Owns the wishes, the repeating, the backoff; decides nothing.

A wish stands until the next one; it is repeated while something is missing, for an instance that was started may never
come. What the platform refuses is tried again later, told once, and never stops the monitor.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from services.monitor.journal import Journal
from services.monitor.provisioners import CALL_S, Place, Provisioner, Showing
from shared.errors import BatonError, Overloaded

AGAIN_S: Final = 2.0
"""Between two wishes while instances are missing."""
LONGEST_S: Final = 60.0
SHOW_S: Final = 5.0
"""So often a platform is told what its instances have become, where it can show it."""
MOST_RELEASES: Final = 10_000

log = logging.getLogger(__name__)


class Supply:
    """The monitor's line to its provisioner. `seen` names all living instances; `may` says whether to act now."""

    def __init__(
        self,
        provisioner: Provisioner,
        journal: Journal,
        *,
        seen: Callable[[], Collection[str]],
        may: Callable[[], bool],
        places: Callable[[], Mapping[str, Place]] = dict,
    ) -> None:
        self._provisioner = provisioner
        self._journal = journal
        self._seen = seen
        self._may = may
        self._places = places
        self._show_s = SHOW_S if isinstance(provisioner, Showing) else None
        self._missing = 0
        self._releases: dict[str, None] = {}  # in order
        self._news = asyncio.Event()
        self._open = False
        self._failures = 0
        self._said = ""

    def want(self, missing: int) -> None:
        """Wish for so many standbys more than there are now."""
        if missing != self._missing:
            self._missing = missing
            self._news.set()

    def release(self, instance: str) -> None:
        """Wish an instance away for good."""
        if len(self._releases) < MOST_RELEASES:
            self._releases[instance] = None
            self._news.set()

    def forget(self) -> None:
        """Drop all wishes: they are another leader's now."""
        self._missing = 0
        self._releases.clear()

    async def keep(self) -> None:
        """Ask. For ever."""
        while True:
            if not self._missing and not self._releases:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._show_s):
                        await self._news.wait()
            pause = await self._ask() if self._may() else AGAIN_S
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Let go of the provisioner."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._provisioner.close()
        except (BatonError, TimeoutError) as error:
            log.debug("the provisioner is not closed in order", extra={"error": str(error)})

    async def _ask(self) -> float:
        """Carry out what is wished; seconds until the next time."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._carry_out()
        except TimeoutError:
            return self._failed(f"the provisioner did not answer within {CALL_S:g} s")
        except Overloaded as error:
            return self._failed(str(error))
        except BatonError as error:
            return self._failed(f"the provisioner failed: {error}")
        except Exception as error:  # a platform's client may raise anything, and the fleet must go on
            log.exception("the provisioner failed")
            return self._failed(f"the provisioner failed: {type(error).__name__}: {error}")
        self._failures, self._said = 0, ""
        return AGAIN_S

    async def _carry_out(self) -> None:
        if not self._open:
            await self._provisioner.open()
            self._open = True
        while self._releases:
            instance = next(iter(self._releases))
            await self._provisioner.release(instance)
            self._releases.pop(instance, None)
            self._journal.note("", "released", f"{instance} was given back to where instances come from")
        await self._show()
        if self._missing:
            started = await self._provisioner.want(self._missing, self._seen())
            if started:
                names = ", ".join(started)
                self._journal.note("", "provided", f"standbys missing: {self._missing}; started: {names}")

    async def _show(self) -> None:
        if isinstance(self._provisioner, Showing):
            try:
                await self._provisioner.show(self._places())
            except BatonError as error:  # for people's eyes only, so nothing else waits for it
                log.warning("the platform does not show what its instances are", extra={"error": str(error)})

    def _failed(self, why: str) -> float:
        log.warning(why)
        if why != self._said:
            self._said = why
            self._journal.note("", "provisioner", why)
        self._failures += 1
        return float(min(LONGEST_S, AGAIN_S * 2 ** min(self._failures, 6)))
