"""The HTTP entrance: what stands around every answer, and how the entrance lives.

Owns request ids, the shape of errors, CORS, the access log, reload and drain. The routes are in `routes.py`, the
connections in `server.py`.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import HttpVersion10, web

from services.gateway.desk import Desk
from services.gateway.http.access_log import ENTRY, AccessLog, Entry
from services.gateway.http.bodies import Bodies, signature, too_large
from services.gateway.http.completions import Completions
from services.gateway.http.crowd import Crowd
from services.gateway.http.routes import JSON, Route, Routes, as_error
from services.gateway.http.server import Door
from services.gateway.http.terms import KEYS, Terms
from services.gateway.metrics import Metrics
from services.gateway.refusals import answer, as_json, headers
from shared.config import Config
from shared.errors import BadRequest, BatonError, Draining
from shared.instance import Instance
from shared.reloading import Apply
from shared.telemetry import speak_of

GIVEN_ID: Final = re.compile(r"^[\x21-\x7e]{1,128}$")
CLIENT_GONE: Final = 499

log = logging.getLogger(__name__)


class HttpEntrance:
    """One per gateway."""

    def __init__(
        self, instance: Instance, terms: Terms, desk: Desk, metrics: Metrics, why_not_ready: Callable[[], str]
    ) -> None:
        self._desk = desk
        self._metrics = metrics
        self._terms = terms
        self._access_log = AccessLog()
        self._bounds: set[asyncio.Timeout] = set()  # of the requests that are being answered
        bodies = self._bodies = Bodies(self._terms)
        self._completions = Completions(desk, self._terms, bodies)
        self._routes = Routes(desk, self._completions, bodies, instance.telemetry, why_not_ready)
        self._door = Door(self.handle, self._terms, Crowd(self._terms))
        instance.telemetry.expose("baton_gateway_http", self._door.crowd.counts)
        instance.reloading.add(self._prepare, *KEYS)

    # ---- its life ----------------------------------------------------------------------------------------------------

    async def open(self, stack: AsyncExitStack) -> int:
        """Listen until `stack` closes; the port. Raises LinkLost."""
        self._access_log.use(self._terms.settings.access_log)
        stack.callback(self._access_log.close)
        await self._door.open(stack)
        stack.callback(self._end)
        return self._door.port

    async def _prepare(self, config: Config) -> Apply:
        """See Reloading. Connections and streams go on, under the new terms."""
        terms = Terms.read(config.gateway)

        def apply() -> None:
            self._terms.take(terms)
            self._access_log.use(terms.settings.access_log)

        return apply

    def _end(self) -> None:
        """End what requests still wait for, a body or anybody's word; the door gives their answers time to go out."""
        for bound in self._bounds:
            bound.reschedule(0.0)

    def sweep(self, elapsed_s: float) -> None:
        """Look after whoever is late or slow; twice a second."""
        self._completions.sweep(elapsed_s)
        self._door.sweep()
        self._access_log.flush()

    def drain(self) -> None:
        """Let go of the connections that wait for a request; the others close with their answer."""
        self._door.drain()

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._door.crowd.size

    # ---- around every answer -----------------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is: with an id, and every error with OpenAI's body."""
        given = request.headers.get("x-request-id", "")
        request_id = given if GIVEN_ID.match(given) else f"req-{secrets.token_hex(16)}"
        terms, sent = self._terms, request.headers
        client = terms.proxies.client(request.remote or "", sent)
        entry = request[ENTRY] = Entry(request_id, terms.cors.headers(sent), client)
        speak_of(request_id)
        route = self._routes.find(request.path)
        entry.route, status = route.label, CLIENT_GONE
        try:
            response = await self._answered(request, route, entry)
            status = response.status
        finally:
            self._metrics.requests.labels(route.label, str(status)).inc()
            self._access_log.write(request, entry, status)
        if self._desk.draining or request.content.exception() is not None:
            response.force_close()
        if not response.prepared:
            if request.writer.output_size > 0 and request.transport is not None:
                request.transport.abort()  # an answer has begun: no other can follow, nor may it be taken for whole
            response.headers.update(signature(request))
        return response

    async def _answered(self, request: web.BaseRequest, route: Route, entry: Entry) -> web.StreamResponse:
        try:
            return await self._bounded(request, route)
        except BatonError as error:
            return _refusal(error, entry)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(too_large(self._terms.settings), entry)
        except web.HTTPRequestTimeout:
            response = as_error(408, "the body did not come in time", "request_timeout")
            response.force_close()
            return response
        except ConnectionError:  # the client is gone: nobody is left to hear of it
            return web.Response(status=CLIENT_GONE)
        except Exception as error:
            log.exception("a request failed inside the gateway", extra={"request": entry.id})
            return _refusal(BatonError(str(error)), entry)

    async def _bounded(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Route a request; when the entrance ends first, that is its answer."""
        bound = asyncio.timeout(None)
        self._bounds.add(bound)
        try:
            async with bound:
                return await self._routed(request, route)
        except TimeoutError:
            if not bound.expired():
                raise
            error = Draining("this gateway has stopped before the request was answered; ask again")
            self._desk.refused(error)
            raise error from None
        finally:
            self._bounds.discard(bound)

    async def _routed(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        if request.version < HttpVersion10:  # a line without a version: such a client could not read the answer's head
            raise BadRequest("the request is not valid HTTP: its first line has no version")
        if request.method == "OPTIONS" and (route.methods or request.path == "*"):
            return self._options(request, route)
        if route.methods and request.method not in route.methods:
            return _wrong_method(request, route.methods)
        if self._desk.draining and not route.probe:
            error = Draining("this gateway is stopping; another one, or the same one restarted, will serve you")
            self._desk.refused(error)
            raise error
        return await route.answer(request)

    def _options(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Say what may be asked here: to a browser before it does, and to anybody else."""
        allowed = {"allow": ", ".join((*route.methods, "OPTIONS"))} if route.methods else {}
        return web.Response(status=204, headers=allowed | self._terms.cors.preflight(request.headers))


def _wrong_method(request: web.BaseRequest, methods: tuple[str, ...]) -> web.Response:
    words = f"{request.path} takes {' or '.join(methods)}, not {request.method[:20]}"
    response = as_error(405, words, "method_not_allowed")
    response.headers["allow"] = ", ".join((*methods, "OPTIONS"))
    return response


def _refusal(error: BatonError, entry: Entry) -> web.Response:
    entry.error = error.code
    return web.Response(status=answer(error).status, body=as_json(error), content_type=JSON, headers=headers(error))
