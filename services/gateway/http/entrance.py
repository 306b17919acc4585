"""The HTTP entrance: routes, what stands around every answer, the small answers.

Owns request ids and the shape of errors. The connections are in `server.py`, the completions in `completions.py`.
"""

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final

import msgspec
from aiohttp import web

from services.gateway.access.caller import Caller
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import parse
from services.gateway.api.responses import ResponsesRequest
from services.gateway.api.tokens import DetokenizeRequest, TokenizeRequest
from services.gateway.desk import Desk
from services.gateway.http.bodies import ID, identify, read_body, signature, too_large
from services.gateway.http.completions import Completions
from services.gateway.http.openapi import document, page
from services.gateway.metrics import Metrics
from services.gateway.prompts.scenarios import Scenario
from services.gateway.refusals import answer, as_json, error_object, headers
from shared.config import GatewaySettings
from shared.errors import BatonError
from shared.telemetry import Telemetry

JSON: Final = "application/json"
GIVEN_ID: Final = re.compile(r"^[\x21-\x7e]{1,128}$")
MODEL_PATH: Final = "/v1/models/"
CLIENT_GONE: Final = 499
Route = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_SERVER_FAULT: Final = 500

log = logging.getLogger(__name__)


class HttpEntrance:
    """All routes of one gateway. `app` is what a server runs."""

    def __init__(
        self,
        desk: Desk,
        settings: GatewaySettings,
        metrics: Metrics,
        telemetry: Telemetry,
        why_not_ready: Callable[[], str],
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._metrics = metrics
        self._telemetry = telemetry
        self._why_not_ready = why_not_ready
        self.completions = Completions(desk, settings)
        self._routes: dict[str, tuple[str, Route]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/completions": ("POST", self._completion),
            "/v1/responses": ("POST", self._response),
            "/v1/models": ("GET", self._models),
            "/tokenize": ("POST", self._tokenize),
            "/detokenize": ("POST", self._detokenize),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._exposition),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
        }

    # ---- around every answer -----------------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is: with an id, and every error with OpenAI's body."""
        given = request.headers.get("x-request-id", "")
        request[ID] = given if GIVEN_ID.match(given) else f"req-{secrets.token_hex(16)}"
        label, status = "other", CLIENT_GONE
        try:
            label, methods, route = self._find(request.path)
            if methods and request.method not in methods:
                response: web.StreamResponse = _wrong_method(request, methods)
            else:
                response = await self._answered(request, route)
            status = response.status
        finally:
            self._metrics.requests.labels(label, str(status)).inc()
        if not response.prepared:
            response.headers.update(signature(request))
        return response

    def _find(self, path: str) -> tuple[str, tuple[str, ...], Route]:
        """Find a path's label for metrics, its methods and its handler."""
        known = self._routes.get(path)
        if known is not None:
            method, route = known
            return path, ("GET", "HEAD") if method == "GET" else (method,), route
        if path.startswith(MODEL_PATH) and len(path) > len(MODEL_PATH):
            return f"{MODEL_PATH}{{id}}", ("GET", "HEAD"), self._model
        return "other", (), self._missing

    async def _answered(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        try:
            return await route(request)
        except BatonError as error:
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(too_large(self._settings))
        except web.HTTPRequestTimeout:
            return _error(408, "the body did not come in time", "request_timeout")
        except ConnectionError:  # the client is gone: nobody is left to hear of it
            return web.Response(status=CLIENT_GONE)
        except Exception as error:
            log.exception("a request failed inside the gateway", extra={"request": request[ID]})
            return _refusal(BatonError(str(error)))

    # ---- routes ------------------------------------------------------------------------------------------------------

    async def _models(self, request: web.BaseRequest) -> web.Response:
        caller = await identify(request, self._desk)
        mine = [scenario.card() for scenario in self._desk.scenarios if caller.may_use(scenario.name)]
        return _json({"object": "list", "data": mine})

    async def _model(self, request: web.BaseRequest) -> web.Response:
        caller = await identify(request, self._desk)
        return _json(self._desk.find(caller, request.path[len(MODEL_PATH) :]).card())

    async def _missing(self, request: web.BaseRequest) -> web.Response:
        return _error(404, f"Not found: {request.method} {request.path[:200]}", "not_found")

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.completions.create(request, ChatRequest)

    async def _completion(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.completions.create(request, CompletionRequest)

    async def _response(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.completions.create(request, ResponsesRequest)

    async def _tokenize(self, request: web.BaseRequest) -> web.Response:
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked = parse(await read_body(request, self._settings), TokenizeRequest)
            scenario = self._scenario(request, caller, asked.model)
            tokens = await scenario.prompter.count(asked)
        return _json({"count": len(tokens), "max_model_len": scenario.prompter.context, "tokens": tokens})

    async def _detokenize(self, request: web.BaseRequest) -> web.Response:
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked = parse(await read_body(request, self._settings), DetokenizeRequest)
            words = await self._scenario(request, caller, asked.model).prompter.words(asked.tokens)
        return _json({"prompt": words})

    def _scenario(self, request: web.BaseRequest, caller: Caller, model: str | None) -> Scenario:
        return self._desk.find(caller, model, request.headers.get("x-baton-scenario"))

    async def _healthz(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002  aiohttp's signature
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002
        why = self._why_not_ready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ready'}\n")

    async def _openapi(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002
        return web.Response(body=self._described[0], content_type=JSON)

    async def _docs(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": "default-src 'none'"}
        return web.Response(body=self._described[1], headers=headers)

    @cached_property
    def _described(self) -> tuple[bytes, bytes]:
        made = document()
        return msgspec.json.encode(made), page(made).encode()

    async def _exposition(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002
        return web.Response(body=self._telemetry.exposition(), headers={"content-type": "text/plain; version=0.0.4"})


def _json(value: Any) -> web.Response:  # noqa: ANN401  whatever JSON can say
    return web.Response(body=msgspec.json.encode(value), content_type=JSON)


def _wrong_method(request: web.BaseRequest, methods: tuple[str, ...]) -> web.Response:
    response = _error(
        405, f"{request.path} takes {' or '.join(methods)}, not {request.method[:20]}", "method_not_allowed"
    )
    response.headers["allow"] = ", ".join(methods)
    return response


def _refusal(error: BatonError) -> web.Response:
    return web.Response(status=answer(error).status, body=as_json(error), content_type=JSON, headers=headers(error))


def _error(status: int, message: str, code: str | None) -> web.Response:
    kind = "invalid_request_error" if status < _SERVER_FAULT else "server_error"
    return web.Response(
        status=status, body=msgspec.json.encode(error_object(message, kind, None, code)), content_type=JSON
    )
