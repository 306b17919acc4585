"""Granted pushes: who may push how much until when, and who owns the staging meanwhile.

Owns each push from its grant until its buffer is handed to whoever awaits it; every path out of that releases the
staging exactly once, a thread or a peer that still writes into it included. Must not touch sockets.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from enum import Enum, auto

from shared.errors import BatonError, Cancelled, DeadlineExceeded, KvRefused, Overloaded
from shared.kv import Staging
from shared.kv.arena import Arena
from shared.kv.wire import TICKET_BYTES, Answer, Opening, refusal, request_mark


class _Phase(Enum):
    GRANTED = auto()  # the ticket is good
    MOVING = auto()  # a thread or a peer writes into the staging
    ARRIVED = auto()  # verified; nobody took it yet
    OVER = auto()  # handed over, or ended


class Push:
    """One granted push; an Expected. Used on the event loop's thread only."""

    def __init__(self, key: str, staging: Staging, seconds: float, on_end: Callable[["Push"], None]) -> None:
        self.key = key
        self.mark = request_mark(key)
        self.ticket = secrets.token_bytes(TICKET_BYTES)
        self.nbytes = len(staging.view)
        self.begun = False
        self._staging = staging
        self._on_end = on_end
        self._phase = _Phase.GRANTED
        self._cut: Callable[[], None] = _nothing
        self._error: BatonError | None = None
        self._settled = asyncio.Event()
        self._awaited = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    async def received(self) -> Staging:
        """The buffer, complete and verified; the caller releases it.

        Raises KvRefused, DeadlineExceeded or Cancelled. Cancelling this wait cancels the push.
        """
        if self._awaited:
            raise RuntimeError(f"the push {self.key} has its one receiver already")
        self._awaited = True
        try:
            await self._settled.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._phase is not _Phase.ARRIVED:
            raise self._error or DeadlineExceeded(f"the push {self.key} is over")
        self._leave()
        return self._staging

    def cancel(self) -> None:
        """Nobody waits any more: the ticket is void and the staging is released. Idempotent."""
        self.fail(Cancelled(f"nobody waits for the push {self.key} any more"))

    def fail(self, error: BatonError) -> None:
        """End the push badly, unless it is over. A thread that still writes is cut off and `end` releases after it."""
        if self._phase is _Phase.OVER:
            return
        self._error = error
        if self._phase is _Phase.MOVING:
            self._phase = _Phase.OVER
            self._timer.cancel()
            self._cut()
        else:
            self._leave()
            self._staging.release()
        self._settled.set()

    # ---- the receiver's side -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether the ticket is still good."""
        return self._phase is _Phase.GRANTED

    @property
    def view(self) -> memoryview:
        """Where the payload goes."""
        return self._staging.view

    @property
    def wanted(self) -> bool:
        """Whether what moves is still waited for."""
        return self._phase is _Phase.MOVING

    def begin(self, cut: Callable[[], None]) -> None:
        """Use the ticket, which is good, up: from now on only `end` releases the staging. `cut` hurries it."""
        self.begun = True
        self._phase = _Phase.MOVING
        self._cut = cut

    def end(self, error: BatonError | None) -> None:
        """Nobody writes any more; `error` is why the buffer must not be used."""
        self._cut = _nothing
        if self._phase is _Phase.OVER:  # failed while it moved
            self._on_end(self)
            self._staging.release()
        elif error is None:
            self._phase = _Phase.ARRIVED
            self._settled.set()
        else:
            self._phase = _Phase.GRANTED
            self.fail(error)

    def _leave(self) -> None:
        self._phase = _Phase.OVER
        self._timer.cancel()
        self._on_end(self)

    def _expire(self) -> None:
        if self._phase is _Phase.ARRIVED and self._awaited:
            return  # it came in time; its owner is about to run
        self.fail(DeadlineExceeded(f"the KV buffer of {self.key} did not come before its deadline"))


class Tickets:
    """All pushes that are granted or moving, bounded in number."""

    def __init__(self, arena: Arena, limit: int) -> None:
        self._arena = arena
        self._limit = limit
        self._pushes: set[Push] = set()

    def __len__(self) -> int:
        return len(self._pushes)

    def grant(self, key: str, nbytes: int, deadline_ms: int) -> Push:
        """Reserve staging and issue a ticket. Raises Overloaded, TooLarge or DeadlineExceeded (it has passed)."""
        seconds = deadline_ms / 1000 - time.time()
        if seconds <= 0:
            raise DeadlineExceeded(f"the deadline of the push {key} has passed")
        if len(self._pushes) >= self._limit:
            raise Overloaded(f"{self._limit} KV pushes are expected already, the limit")
        push = Push(key, self._arena.reserve(nbytes), seconds, self._pushes.discard)
        self._pushes.add(push)
        return push

    def claim(self, opening: Opening, cut: Callable[[], None]) -> Push:
        """Use the ticket of an opening; `cut` is called when nobody waits for its payload any more.

        Raises KvRefused; a good ticket with a wrong length is used up all the same.
        """
        found = None
        for push in self._pushes:  # every one, and each in constant time: how long it takes tells nothing
            if hmac.compare_digest(push.ticket, opening.ticket) and push.waiting:
                found = push
        if found is None:
            raise refusal(Answer.TICKET)
        if not hmac.compare_digest(found.mark, opening.request):
            raise self._refuse(found, refusal(Answer.TICKET, "it belongs to another request"))
        if opening.length != found.nbytes:
            detail = f"{opening.length} bytes instead of {found.nbytes}"
            raise self._refuse(found, refusal(Answer.LENGTH, detail))
        found.begin(cut)
        return found

    def close(self, error: BatonError) -> None:
        """Void every ticket."""
        for push in list(self._pushes):
            push.fail(error)

    @staticmethod
    def _refuse(push: Push, error: KvRefused) -> KvRefused:
        push.fail(error)
        return error


def _nothing() -> None:
    """What moves cannot be cut, or nothing moves."""
