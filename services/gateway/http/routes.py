"""What the gateway answers to, by path: where each goes, and the small answers.

Owns the table of routes. What stands around every answer is in `entrance.py`, the completions in `completions.py`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec
from aiohttp import web

from services.gateway.access.caller import Caller
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.moderations import ModerationRequest
from services.gateway.api.reading import parse
from services.gateway.api.responses import ResponsesRequest
from services.gateway.api.tokens import DetokenizeRequest, TokenizeRequest
from services.gateway.content.inquiries import inquire
from services.gateway.desk import Desk
from services.gateway.http.bodies import Bodies, identify
from services.gateway.http.completions import Completions
from services.gateway.http.docs_page import POLICY, page
from services.gateway.http.openapi import document
from services.gateway.prompts.scenarios import Scenario
from services.gateway.refusals import error_object
from shared.telemetry import Telemetry

JSON: Final = "application/json"
MODEL_PATH: Final = "/v1/models/"
STREAM_PATH: Final = "/v1/streams/"
_SERVER_FAULT: Final = 500

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path: its label in metrics and logs, its methods, its handler."""

    label: str
    methods: tuple[str, ...]
    answer: Answer
    probe: bool = False  # answered while draining too


class Routes:
    """All routes of one gateway."""

    def __init__(
        self,
        desk: Desk,
        completions: Completions,
        bodies: Bodies,
        telemetry: Telemetry,
        why_not_ready: Callable[[], str],
    ) -> None:
        self._desk = desk
        self._completions = completions
        self._bodies = bodies
        self._telemetry = telemetry
        self._why_not_ready = why_not_ready
        posts = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/responses": self._response,
            "/v1/moderations": self._moderation,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        gets = {"/v1/models": self._models, "/openapi.json": self._openapi, "/docs": self._docs}
        probes = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._exposition}
        self._known = {
            **{path: Route(path, ("POST",), answer) for path, answer in posts.items()},
            **{path: Route(path, ("GET", "HEAD"), answer) for path, answer in gets.items()},
            **{path: Route(path, ("GET", "HEAD"), answer, probe=True) for path, answer in probes.items()},
        }
        self._one_model = Route(f"{MODEL_PATH}{{id}}", ("GET", "HEAD"), self._model)
        self._one_stream = Route(f"{STREAM_PATH}{{id}}", ("GET",), self._resumed)
        self._unknown = Route("other", (), _missing)

    def find(self, path: str) -> Route:
        """Find whose path this is; a route without methods answers for the paths that there are not."""
        known = self._known.get(path)
        if known is not None:
            return known
        for prefix, route in ((MODEL_PATH, self._one_model), (STREAM_PATH, self._one_stream)):
            if path.startswith(prefix) and len(path) > len(prefix):
                return route
        return self._unknown

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._completions.create(request, ChatRequest)

    async def _completion(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._completions.create(request, CompletionRequest)

    async def _response(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._completions.create(request, ResponsesRequest)

    async def _resumed(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._completions.resume(request, request.path[len(STREAM_PATH) :])

    async def _models(self, request: web.BaseRequest) -> web.Response:
        caller = await identify(request, self._desk)
        return as_answer({"object": "list", "data": self._desk.scenarios.cards(caller.may_use)})

    async def _model(self, request: web.BaseRequest) -> web.Response:
        caller = await identify(request, self._desk)
        name = request.path[len(MODEL_PATH) :]
        scenario = self._desk.find(caller, name)
        return as_answer(scenario.card(name if name in scenario.aliases else ""))

    async def _moderation(self, request: web.BaseRequest) -> web.Response:
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked = parse(await self._bodies.read(request), ModerationRequest)
            async with self._desk.counted(caller) as grant:
                return as_answer(await inquire(self._desk.moderation, asked), grant.headers)

    async def _tokenize(self, request: web.BaseRequest) -> web.Response:
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked = parse(await self._bodies.read(request), TokenizeRequest)
            scenario = self._scenario(request, caller, asked.model)
            async with self._desk.counted(caller, scenario.name) as grant:
                tokens = await scenario.prompter.count(asked)
        said = {"count": len(tokens), "max_model_len": scenario.prompter.context, "tokens": tokens}
        return as_answer(said, grant.headers)

    async def _detokenize(self, request: web.BaseRequest) -> web.Response:
        with self._desk.place():
            caller = await identify(request, self._desk)
            asked = parse(await self._bodies.read(request), DetokenizeRequest)
            scenario = self._scenario(request, caller, asked.model)
            async with self._desk.counted(caller, scenario.name) as grant:
                words = await scenario.prompter.words(asked.tokens)
        return as_answer({"prompt": words}, grant.headers)

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
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}
        return web.Response(body=self._described[1], headers=headers)

    @cached_property
    def _described(self) -> tuple[bytes, bytes]:
        made = document()
        return msgspec.json.encode(made), page(made).encode()

    async def _exposition(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002
        return web.Response(body=self._telemetry.exposition(), headers={"content-type": "text/plain; version=0.0.4"})


async def _missing(request: web.BaseRequest) -> web.Response:
    return as_error(404, f"Not found: {request.method[:20]} {request.path[:200]}", "not_found")


def as_answer(value: Any, headers: dict[str, str] | None = None) -> web.Response:  # noqa: ANN401  whatever JSON can say
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type=JSON, headers=headers)


def as_error(status: int, message: str, code: str | None) -> web.Response:
    """Answer with an error that no class stands for."""
    kind = "invalid_request_error" if status < _SERVER_FAULT else "server_error"
    body = msgspec.json.encode(error_object(message, kind, None, code))
    return web.Response(status=status, body=body, content_type=JSON)
