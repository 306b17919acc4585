"""A long prompt's hand-off that begins while it is computed: the decode is chosen first, and its KV follows the chunks.

Owns one such push from the first asking to its end, whichever way. Nothing is lost where it fails: the whole buffer is
still in the slot's staging, and goes to another decode in the ordinary way.
"""

import asyncio
import logging

from services.prefill.handoff import Handoff, Refused
from services.prefill.slots import Slot
from shared.engine import EngineInfo, Prefilled
from shared.errors import BatonError, WorkerLost
from shared.kv.growth import Growing, Tail
from shared.messages import KvGrant, KvReady
from shared.worker.standing import Standing

log = logging.getLogger(__name__)


class Ahead:
    """One attempt's. `grow` as the engine tells, then `finish`; `stop` always, before the staging is released."""

    def __init__(self, handoff: Handoff, info: EngineInfo, ready: KvReady, slot: Slot) -> None:
        self.asked: list[str] = []  # whom the buffer was pushed to
        self._handoff = handoff
        self._info = info
        self._ready = ready
        self._growing = Growing(slot.staging)
        self._task: asyncio.Task[KvGrant | BatonError | None] | None = None

    def begin(self, standing: Standing) -> None:
        """Ask for a decode, beside the computing. Raises Overloaded or Draining."""
        self._task = standing.tasks.spawn(self._push(), name=f"ahead {self._ready.request.request_id}")

    def grow(self, tokens: int) -> None:
        """So many leading tokens' KV is in the buffer."""
        self._growing.grow(self._info.kv_bytes(tokens))

    async def finish(self, prefilled: Prefilled) -> KvGrant | None:
        """Let the rest follow. The grant of the decode that has the attempt now; None: certainly none has.

        Raises WorkerLost when one may have it, but does not answer any more.
        """
        if self._task is None:
            return None
        self._growing.complete(Tail(prefilled.first.token_id, prefilled.cached_tokens))
        ended = await self._task
        if isinstance(ended, BatonError):
            raise ended
        return ended

    async def stop(self) -> None:
        """Return when nobody reads the buffer any more. Idempotent."""
        self._growing.stop()
        if self._task is None or self._task.done():
            return
        if not self._growing.stopped:  # complete and on its way: only a cut ends it
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _push(self) -> KvGrant | BatonError | None:
        try:
            return await self._handoff.ahead(self._ready, self._growing, self.asked)
        except WorkerLost as lost:
            if self._growing.completed_at is not None:
                return lost
            log.info("nothing is pushed ahead", extra={"error": str(lost)})
        except (Refused, BatonError) as error:
            log.info("nothing is pushed ahead", extra={"error": str(error)})
        return None
