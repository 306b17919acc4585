"""The NATS entrance: direct clients of `<prefix>.<scenario>.requests`.

Owns the replies to such clients, in order, through one bounded outbox. Bytes and reply subjects are untrusted: whatever
they are, the client gets an answer or, where it named no inbox, a counter goes up.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from services.gateway.answers.forms import name_call, over_nats
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import convert
from services.gateway.desk import Desk
from services.gateway.refusals import as_map
from shared.bus import Bus, Delivery, extract
from shared.errors import BadRequest, BatonError, MalformedMessage, Overloaded, Unavailable
from shared.tasks import Tasks

VERSION: Final = 1
OUTBOX: Final = 65_536
"""Replies not yet published; beyond it requests end with an error."""
INBOX: Final = re.compile(r"^_INBOX\.[A-Za-z0-9_$.-]{1,240}\Z")
"""An inbox of a client, never one of a service: those wait for answers of ours."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    requests: int = 0
    refused: int = 0
    no_inbox: int = 0
    replies_lost: int = 0


class NatsEntrance:
    """One per gateway. `run` is a task of its owner; `on_delivery` is called by the subscriptions."""

    def __init__(self, bus: Bus, desk: Desk, tasks: Tasks) -> None:
        self.counts = Counts()
        self._bus = bus
        self._desk = desk
        self._tasks = tasks
        self._open = 0
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(OUTBOX)

    def __len__(self) -> int:
        """Calls of NATS clients that have not ended."""
        return self._open

    def listen(self, scenario: str) -> Callable[[Delivery], None]:
        """Make the handler of one scenario's subject."""
        return lambda delivery: self._take(scenario, delivery)

    async def run(self) -> None:
        """Publish replies, in order, for ever."""
        while True:
            subject, data = await self._outbox.get()
            try:
                await self._bus.publish(subject, data, traced=False)
            except BatonError as error:
                self.counts.replies_lost += 1
                log.info("reply not sent", extra={"why": str(error)})
            finally:
                self._outbox.task_done()

    async def flushed(self) -> None:
        """Return once every reply is with the bus."""
        await self._outbox.join()

    def _take(self, scenario: str, delivery: Delivery) -> None:
        self.counts.requests += 1
        if not INBOX.match(delivery.reply):
            self.counts.no_inbox += 1
            return
        try:
            _ = self._tasks.spawn(self._serve(scenario, delivery), name="nats request")
        except Unavailable as error:
            self._refuse(delivery.reply, error)

    async def _serve(self, scenario: str, delivery: Delivery) -> None:
        """Answer one request; every way out is a reply."""
        self._open += 1
        try:
            with self._desk.place():
                await self._answer(scenario, delivery)
        except BatonError as error:
            self._refuse(delivery.reply, error)
        except Exception as error:
            log.exception("a NATS request failed inside the gateway")
            self._refuse(delivery.reply, BatonError(str(error)))
        finally:
            self._open -= 1

    def _refuse(self, subject: str, error: BatonError) -> None:
        self.counts.refused += 1
        with contextlib.suppress(Overloaded):  # counted as a lost reply
            self._reply(subject, as_map(error))

    async def _answer(self, name: str, delivery: Delivery) -> None:
        asked, key = read(delivery.data)
        caller = await self._desk.identify(key)
        scenario = self._desk.find(caller, name)
        call_id = name_call(asked)
        answer = await over_nats(asked, call_id, scenario, lambda reply: self._reply(delivery.reply, reply))
        call = await self._desk.open(caller, asked, scenario, call_id=call_id, answer=answer, context=extract(delivery))
        answer.on_full = lambda: self._desk.cut(call)
        try:
            answer.acknowledge()
            await call.ended
            answer.end(call.usage)
        finally:
            self._desk.close(call)

    def _reply(self, subject: str, reply: dict[str, Any]) -> None:
        """Queue a reply. Raises Overloaded when the outbox is full."""
        try:
            self._outbox.put_nowait((subject, msgpack.packb(reply)))
        except asyncio.QueueFull:
            self.counts.replies_lost += 1
            raise Overloaded("too many replies wait for NATS") from None


def read(data: bytes) -> tuple[ChatRequest | CompletionRequest, str]:
    """Read a client's map and its key. Raises MalformedMessage, BadRequest."""
    try:
        fields = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # TypeError: a list as a map's key
        raise MalformedMessage("a MessagePack map", len(data), str(error)) from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise MalformedMessage("a MessagePack map with string keys", len(data))
    version = fields.pop("v", VERSION)
    if version != VERSION:
        raise BadRequest(f"v is {version!r}; this gateway speaks version {VERSION}", "v")
    key = fields.pop("api_key", "")
    if not isinstance(key, str):
        raise BadRequest("api_key must be a string", "api_key")
    if "messages" in fields:
        return convert(fields, ChatRequest), key
    return convert(fields, CompletionRequest), key
