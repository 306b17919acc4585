"""Chats, text completions and responses over HTTP, streamed and whole.

Owns the connection while an answer goes out. A client that goes away cancels its handler, and the handler's end closes
the call, in whatever phase it is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypedDict

from aiohttp import HttpVersion11, web
from opentelemetry.context import Context

from services.gateway.access.caller import Caller
from services.gateway.answers.forms import Asked, Streamed, name_call, streamed, whole
from services.gateway.answers.positions import CALL_ID, Position, read_event_id
from services.gateway.answers.sse import SseStream
from services.gateway.api.reading import parse
from services.gateway.desk import Desk
from services.gateway.http.access_log import ENTRY
from services.gateway.http.bodies import Bodies, identify, signature, timeout_of
from services.gateway.http.terms import Terms
from services.gateway.prompts.scenarios import Scenario
from services.gateway.relay.calls import Call
from shared.errors import BadRequest, BatonError, UnknownStream
from shared.telemetry import extract_context

SSE_HEADERS: Final = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}

LAST_EVENT_ID: Final = "last-event-id"


class _Around(TypedDict):
    """What a request says in its headers."""

    context: Context
    timeout_s: float | None


class Completions:
    """The routes that generate."""

    def __init__(self, desk: Desk, terms: Terms, bodies: Bodies) -> None:
        self._desk = desk
        self._terms = terms
        self._bodies = bodies
        self._streams: set[SseStream] = set()

    def sweep(self, elapsed_s: float) -> None:
        """Keep quiet streams open and cut those that nobody reads."""
        for stream in list(self._streams):
            stream.sweep(elapsed_s)

    async def create(self, request: web.BaseRequest, shape: type[Asked]) -> web.StreamResponse:
        """Answer one request."""
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked: Asked = parse(await self._bodies.read(request), shape)
            if asked.stream and (last := request.headers.get(LAST_EVENT_ID)):  # as some clients reconnect
                return await self._resume(request, caller, *read_event_id(last))
            entry = request[ENTRY]
            entry.model, entry.stream = asked.model or "", bool(asked.stream)
            scenario = await self._desk.choose(caller, asked, request.headers.get("x-baton-scenario"))
            if asked.stream:
                return await self._stream(request, caller, asked, scenario)
            return await self._whole(request, caller, asked, scenario)

    async def _whole(self, request: web.BaseRequest, caller: Caller, asked: Asked, scenario: Scenario) -> web.Response:
        call_id = name_call(asked)
        collected = await whole(asked, call_id, scenario)
        call = await self._desk.open(caller, asked, scenario, call_id=call_id, answer=collected, **_around(request))
        request[ENTRY].call = call
        try:
            await call.ended
        finally:
            self._desk.close(call)
        return web.Response(
            body=collected.body(call.usage), content_type="application/json", headers=call.grant.headers
        )

    async def _stream(
        self, request: web.BaseRequest, caller: Caller, asked: Asked, scenario: Scenario
    ) -> web.StreamResponse:
        call_id, created = name_call(asked), int(time.time())
        events = await streamed(asked, call_id, scenario, self._terms.settings, created=created)
        call = await self._desk.open(
            caller, asked, scenario, call_id=call_id, answer=events, created=created, **_around(request)
        )
        return await self._send(request, call, events)

    async def resume(self, request: web.BaseRequest, call_id: str) -> web.StreamResponse:
        """Go on with a stream behind the last event that its client has seen."""
        with self._desk.place():
            caller = await identify(request, self._desk)
            last = request.headers.get(LAST_EVENT_ID) or request.query.get("after")
            named, seen = read_event_id(last) if last else (call_id, [])
            if not CALL_ID.match(call_id):
                raise UnknownStream("no stream has such an id")
            if named != call_id:
                raise BadRequest(f"{LAST_EVENT_ID} is of another stream", LAST_EVENT_ID)
            return await self._resume(request, caller, call_id, seen)

    async def _resume(
        self, request: web.BaseRequest, caller: Caller, call_id: str, seen: list[Position]
    ) -> web.StreamResponse:
        found = await self._desk.find_stream(caller, call_id)
        entry = request[ENTRY]
        entry.model, entry.stream = found.scenario.name, True
        events = await streamed(
            found.asked,
            call_id,
            found.scenario,
            self._terms.settings,
            created=found.memo.created,
            seen=seen,
        )
        context = extract_context(request.headers)
        call = await self._desk.reopen(caller, found, answer=events, seen=seen, context=context)
        return await self._send(
            request, call, events, lambda: self._desk.go_on(call, found, seen, events.stream.has_room)
        )

    async def _send(
        self,
        request: web.BaseRequest,
        call: Call,
        events: Streamed,
        go_on: Callable[[], Awaitable[None]] | None = None,
    ) -> web.StreamResponse:
        """Write a stream from its headers to its end. `go_on`: of a resumed one, brings it up to where it stands."""
        request[ENTRY].call = call
        events.stream.on_cut = lambda: self._desk.cut(call)
        try:
            await call.admitted  # until here the answer may still be an error with a status of its own
            response = web.StreamResponse(headers=SSE_HEADERS | signature(request) | call.grant.headers)
            await response.prepare(request)
            await response.write(events.opening())  # takes the headers along
            await self._run(request, call, events, go_on)
        finally:
            self._desk.close(call)
        await self._finish(request, response, events)
        return response

    async def _run(
        self,
        request: web.BaseRequest,
        call: Call,
        events: Streamed,
        go_on: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Let the records write to the connection until the call has ended, then write its ending."""
        if request.transport is None:
            raise ConnectionResetError
        events.stream.attach(request.transport, chunked=request.version >= HttpVersion11)
        self._streams.add(events.stream)
        try:
            if go_on is not None:
                await go_on()
            await call.ended
        except BatonError as error:
            self._desk.refused(error)
            events.stream.last_words()
            events.fail(error)
        else:
            events.end(call.usage)
        finally:
            self._streams.discard(events.stream)

    async def _finish(self, request: web.BaseRequest, response: web.StreamResponse, events: Streamed) -> None:
        """End the body; a client that was cut off, or does not take the rest in time, loses its connection."""
        transport = request.transport
        try:
            if events.stream.gone:
                raise ConnectionResetError
            async with asyncio.timeout(events.stream.patience_s):
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            if transport is not None:
                transport.abort()


def _around(request: web.BaseRequest) -> _Around:
    """Read what the headers say of how a request is to be served."""
    return {"context": extract_context(request.headers), "timeout_s": timeout_of(request)}
