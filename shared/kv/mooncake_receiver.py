"""Decode's end of a push by Mooncake: says where to write, waits for the word that it is over, verifies, answers.

Owns the ranges that a remote engine may still write to when nobody waits for them any more: the quarantine. Must not
know what a buffer means.

A write cannot be cut from here. A range is used again only when nothing can come any more, which is so

1. when it holds what its sender says it has written: then every byte has come. The last bytes are set to random ones
   before, so that what an earlier push of the same buffer left does not pass for this one; an engine may call a write
   done while its end is still under way, so the comparison is repeated for `SETTLE_S`;
2. when the sender says that it did not begin;
3. else when `kv.mooncake_grace_s` has passed since the connection ended, or since a word that leaves it open.

A sender keeps the connection for as long as its write goes on, wanted or not, so its end means that the process is
gone, or that its machine has been silent for `SILENT_S`; then only what was on the way can still come. Two minutes,
the default, is the longest that a kernel waits between two attempts to deliver what a dead process had sent; the
retries of RDMA take seconds. What this leaves: a network that was cut for longer than both times together, and heals
before a living sender's TCP gives up (up to fifteen minutes). Where that can be, set the grace to more.

Until then the range counts as held, and its push as expected. A push that is cancelled or overdue fails at once all
the same: whoever waits for it never waits for a writer.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from shared.errors import BatonError, Draining, KvRefused, MalformedMessage
from shared.kv.layout import checksum
from shared.kv.link import Link
from shared.kv.mooncake import Mooncake
from shared.kv.tickets import Push, Tickets
from shared.kv.wire import (
    WORD_BYTES,
    Answer,
    Opening,
    Outcome,
    pack_address,
    pack_answer,
    parse_word,
    refusal,
)

SILENT_S: Final = 30
"""A sender whose machine does not answer for so long is taken for gone."""
SETTLE_S: Final = 1.0
"""How long the end of a write may take to arrive after it was called done."""
RECORD_S: Final = 5.0
"""How long the rest of a word may take once its first byte has come."""
MARK_BYTES: Final = 16
_AGAIN_S: Final = 0.02

log = logging.getLogger(__name__)


class Landing:
    """Takes the writes into one arena in. Used on the event loop's thread."""

    def __init__(self, mooncake: Mooncake, tickets: Tickets, threads: ThreadPoolExecutor, grace_s: float) -> None:
        self._mooncake = mooncake
        self._tickets = tickets
        self._threads = threads
        self._grace_s = grace_s
        self._quarantine: dict[Push, asyncio.TimerHandle] = {}

    @property
    def quarantined(self) -> int:
        """Ranges that nobody waits for and that may still be written to, their senders being gone."""
        return len(self._quarantine)

    async def take_in(self, link: Link, opening: Opening) -> None:
        """One write from its opening to the answer. Raises KvRefused, MalformedMessage or OSError."""
        push = self._tickets.claim(opening, _nothing)
        over = True  # nothing can come any more, or not yet
        error: BatonError | None = Draining("the KV receiver is closing")  # unless told otherwise below
        try:
            link.keep_alive(SILENT_S)
            mark(push.view)
            over = False
            link.say(pack_answer(Answer.GO) + pack_address(self._mooncake.address_of(push.view)))
            outcome, digest = parse_word(await link.read(WORD_BYTES, rest_s=RECORD_S))
            over = outcome is Outcome.NEVER or await self._complete(push, digest)
            self._judge(push, outcome, complete=over)
            link.say(pack_answer(Answer.DONE))
            error = None
        except KvRefused as refused:
            error = refused
            raise
        except (OSError, MalformedMessage) as lost:
            error = KvRefused("length", f"the KV push of {push.key} broke off: {lost}")
            raise
        finally:
            if over:
                push.end(error)
            else:
                self._keep(push, error)

    def close(self) -> None:
        """Release what is in quarantine; after the engine's end, when nothing can be written any more. Idempotent."""
        for push in list(self._quarantine):
            self._let_go(push)

    def _judge(self, push: Push, outcome: Outcome, *, complete: bool) -> None:
        """Raise what the sender is to hear, unless the buffer is good and waited for."""
        if outcome in {Outcome.NEVER, Outcome.BROKEN}:
            raise refusal(Answer.LENGTH, f"the sender says that the write of {push.key} failed")
        if not complete:
            raise refusal(Answer.CHECKSUM)
        if outcome is Outcome.UNWANTED or not push.wanted:
            raise refusal(Answer.TICKET, f"nobody waits for {push.key} any more")

    async def _complete(self, push: Push, digest: bytes) -> bool:
        """Whether the range holds what was written, now or soon."""
        give_up = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            found = await self._aside(partial(checksum, push.view))
            if hmac.compare_digest(found, digest):
                return True
            if asyncio.get_running_loop().time() >= give_up:
                return False
            await asyncio.sleep(_AGAIN_S)

    async def _aside(self, work: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _keep(self, push: Push, error: BatonError | None) -> None:
        """Fail the push, and keep its range from everybody for the grace."""
        push.fail(error or Draining("the KV receiver is closing"))
        log.warning("the staging of %s is kept: its sender may still write to it", push.key)
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._let_go, push)
        self._quarantine[push] = timer

    def _let_go(self, push: Push) -> None:
        timer = self._quarantine.pop(push)
        timer.cancel()
        push.end(Draining(f"the KV push of {push.key} is over"))


def mark(view: memoryview) -> None:
    """Make the last bytes such that no earlier push can have left them."""
    count = min(MARK_BYTES, len(view))
    with view[len(view) - count :] as end:
        end[:] = secrets.token_bytes(count)


def _nothing() -> None:
    """A remote write cannot be cut."""
