"""The NATS entrance: direct clients of `<prefix>.<scenario>.requests`.

Owns the replies to such clients, in order, through one bounded outbox; who they are is in `clients.py`. Bytes and
reply subjects are untrusted: whatever they are, the client gets an answer or, where it named no inbox, a counter goes
up.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgpack

from services.gateway.access.caller import Caller
from services.gateway.answers.forms import name_call, over_nats
from services.gateway.answers.maps import NatsAnswer
from services.gateway.answers.positions import Position
from services.gateway.api.responses import ResponsesRequest
from services.gateway.desk import Desk
from services.gateway.nats.clients import Client, Clients
from services.gateway.nats.reading import as_asked, read, read_cancel, read_resume
from services.gateway.refusals import as_map
from services.gateway.relay.calls import Call
from shared.bus import Bus, Delivery, extract
from shared.errors import BatonError, Draining, Overloaded, TooLarge, Unavailable
from shared.tasks import Tasks

OUTBOX: Final = 65_536
"""Replies not yet published; beyond it requests end with an error."""
INBOX: Final = re.compile(r"^_INBOX(?=.{1,241}\Z)(\.[A-Za-z0-9_$-]+)+\Z")
"""An inbox of a client, never one of a service: those wait for answers of ours. NATS takes no word that is empty."""
CLOSE_S: Final = 1.0
"""At the end, for the last replies."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    gone: int = 0  # requests whose client no longer listened
    no_inbox: int = 0
    replies_lost: int = 0


class NatsEntrance:
    """One per gateway. `run` is a task of its owner; `on_delivery` is called by the subscriptions."""

    def __init__(self, bus: Bus, desk: Desk, tasks: Tasks) -> None:
        self.counts = Counts()
        self._bus = bus
        self._desk = desk
        self._tasks = tasks
        self._serving: set[asyncio.Task[None]] = set()
        self._probes = bus.inbox()
        self._clients = Clients(self._queue, self._probes)
        self._outbox: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue(OUTBOX)

    def __len__(self) -> int:
        """Calls of NATS clients that have not ended."""
        return len(self._serving)

    async def open(self, stack: AsyncExitStack) -> None:
        """Listen for what NATS says of clients that are gone; end what is still open when `stack` closes.

        Requests must have ceased to come by then, and `run` must still run.
        """
        stack.push_async_callback(self._close)
        subscription = await self._bus.subscribe(f"{self._probes}.*", self._on_probe)
        stack.push_async_callback(subscription.stop)

    def _on_probe(self, delivery: Delivery) -> None:
        self.counts.gone += self._clients.on_probe(delivery)

    def sweep(self, elapsed_s: float) -> None:
        """Ask now and then whether the clients are still there."""
        with contextlib.suppress(Overloaded):  # counted; a probe may wait until there is room
            self._clients.sweep(elapsed_s)

    def on_cancel(self, delivery: Delivery) -> None:
        """Stop what a client wants stopped, if it is here; every gateway hears this, and those without it say nothing.

        Whoever knows a request's id, or the inbox that it is answered on, may stop it: nobody can guess either.
        """
        inbox = delivery.reply if INBOX.match(delivery.reply) else ""
        try:
            ids, stopped = self._clients.cancel(read_cancel(delivery.data))
        except BatonError as error:
            if inbox:
                self._refuse(inbox, error)
            return
        self.counts.cancelled += stopped
        if inbox and ids:
            with contextlib.suppress(Overloaded):  # counted as a lost reply
                self._queue(inbox, {"cancelled": ids})

    def listen(self, scenario: str) -> Callable[[Delivery], None]:
        """Make the handler of one scenario's subject."""
        return lambda delivery: self._take(scenario, delivery)

    async def run(self) -> None:
        """Publish replies, in order, for ever."""
        while True:
            subject, data, reply = await self._outbox.get()
            try:
                await self._publish(subject, data, reply)
            except BatonError as error:
                self.counts.replies_lost += 1
                log.info("reply not sent", extra={"why": str(error)})
            finally:
                self._outbox.task_done()

    async def _publish(self, subject: str, data: bytes, reply: str) -> None:
        try:
            await self._bus.publish(subject, data, reply=reply, traced=False)
        except TooLarge:  # a whole answer, whose client waits for it
            error = TooLarge(f"the answer has {len(data)} bytes, more than NATS takes as one message; ask for a stream")
            await self._bus.publish(subject, msgpack.packb(as_map(error)), traced=False)

    async def flushed(self) -> None:
        """Return once every reply is with the bus."""
        await self._outbox.join()

    def _take(self, scenario: str, delivery: Delivery) -> None:
        self.counts.requests += 1
        if not INBOX.match(delivery.reply):
            self.counts.no_inbox += 1
            return
        try:
            task = self._tasks.spawn(self._serve(scenario, delivery), name="nats request")
        except Unavailable as error:
            self._refuse(delivery.reply, error)
        else:
            self._serving.add(task)
            task.add_done_callback(partial(self._served, delivery.reply))

    def _served(self, inbox: str, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if task.cancelled():  # perhaps before it began
            self._refuse(inbox, Draining("this gateway has stopped before the answer was complete; ask again"))

    async def _close(self) -> None:
        """End what is open still, whatever it waits for, and let everybody hear of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._serving:
                    for task in self._serving:
                        task.cancel()
                    await asyncio.wait(self._serving)
                await self._outbox.join()

    async def _serve(self, scenario: str, delivery: Delivery) -> None:
        """Answer one request; every way out but a cancellation, see `_served`, is a reply."""
        try:
            with self._desk.place():
                await self._answer(scenario, delivery)
        except BatonError as error:
            self._refuse(delivery.reply, error)
        except Exception as error:
            log.exception("a NATS request failed inside the gateway")
            self._refuse(delivery.reply, BatonError(str(error)))

    def _refuse(self, subject: str, error: BatonError) -> None:
        self.counts.refused += 1
        with contextlib.suppress(Overloaded):  # counted as a lost reply
            self._queue(subject, as_map(error))

    async def _answer(self, name: str, delivery: Delivery) -> None:
        fields, key = read(delivery.data)
        caller = await self._desk.identify(key)
        if "resume" in fields:
            await self._resume(caller, delivery, *read_resume(fields))
            return
        asked = as_asked(fields)
        scenario = self._desk.find(caller, name)
        call_id = name_call(asked)
        client = self._clients.open(delivery.reply, call_id, streamed=bool(asked.stream))
        try:
            answer = await over_nats(asked, call_id, scenario, client.send)
            around, now = extract(delivery), int(time.time())
            call = await self._desk.open(
                caller, asked, scenario, call_id=call_id, answer=answer, context=around, created=now
            )
            await self._send(client, call, answer)
        finally:
            self._clients.close(client)

    async def _resume(self, caller: Caller, delivery: Delivery, call_id: str, seen: list[Position]) -> None:
        """Go on with a stream behind the last map that its client has seen, on the inbox that it listens on now."""
        found = await self._desk.find_stream(caller, call_id)
        asked = found.asked
        assert not isinstance(asked, ResponsesRequest)  # noqa: S101  its id says so
        client = self._clients.open(delivery.reply, call_id, streamed=True)
        try:
            answer = await over_nats(asked, call_id, found.scenario, client.send)
            call = await self._desk.reopen(caller, found, answer=answer, seen=seen, context=extract(delivery))
            await self._send(
                client, call, answer, lambda: self._desk.go_on(call, found, seen, self._has_room), opened=bool(seen)
            )
        finally:
            self._clients.close(client)

    async def _send(
        self,
        client: Client,
        call: Call,
        answer: NatsAnswer,
        go_on: Callable[[], Awaitable[None]] | None = None,
        *,
        opened: bool = False,
    ) -> None:
        """Send an answer to its end. `go_on`: of a resumed one, brings it up to where it stands."""
        answer.on_full = lambda: self._desk.cut(call)
        try:
            client.begin(lambda error: self._desk.stop(call, error))
            answer.acknowledge(opened=opened)
            if go_on is not None:
                await go_on()
            await call.ended
            answer.end(call.usage)
        finally:
            self._desk.close(call)

    def _has_room(self) -> bool:
        return self._outbox.qsize() < OUTBOX // 4

    def _queue(self, subject: str, reply: dict[str, Any], probe: str = "") -> None:
        """Queue a reply. Raises Overloaded when the outbox is full."""
        try:
            self._outbox.put_nowait((subject, msgpack.packb(reply), probe))
        except asyncio.QueueFull:
            self.counts.replies_lost += 1
            raise Overloaded("too many replies wait for NATS") from None
