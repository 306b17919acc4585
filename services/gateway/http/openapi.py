"""The OpenAPI document of the HTTP surface, and a page that lists it.

Owns the description of routes. Requests are described by the very shapes that read them, so what is written there
cannot differ from what is accepted; rules between fields are told by the 400 that a breach of them gets.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.moderations import ModerationRequest
from services.gateway.api.responses import ResponsesRequest
from services.gateway.api.tokens import DetokenizeRequest, TokenizeRequest
from services.gateway.http import openapi_answers as answers
from services.gateway.http import openapi_responses as responses

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_TEXT: Final = "text/plain"
_STREAM: Final = (
    "Server-sent events, where the request says stream: true. {events} Once the stream has begun, an error is an event "
    "too; a stream without its last event was cut."
)
_CHAT_EVENTS: Final = "`[DONE]` comes last."
_RESUMED_EVENTS: Final = "They are those that the stream would have brought, with the same ids."
_RESPONSE_EVENTS: Final = (
    "Each event has a type and a sequence_number: response.created, response.in_progress, response.output_item.added, "
    "response.content_part.added, response.output_text.delta, response.output_text.done, response.content_part.done, "
    "response.function_call_arguments.delta, response.function_call_arguments.done, response.output_item.done, error, "
    "and last response.completed, response.incomplete or response.failed."
)
_LAST_EVENT: Final = "The id of the last event seen; without it a stream is sent from its beginning."
_ID: Final = {"type": "string"}
_ANY_CHUNK: Final = ("ChatCompletionChunk", "Completion", "ResponseEvent")
_WHY: Final[Mapping[int, str]] = {
    400: "The request must be changed; `param` says where.",
    401: "No key, or one that is not known here.",
    403: "A good key that may not do this.",
    404: "No such model, or no such stream.",
    405: "Not with this method.",
    408: "The body did not come in time.",
    413: "The body is larger than this server takes.",
    429: "Capacity, or the share of it that is yours, is taken now.",
    500: "The server failed.",
    502: "The engine failed.",
    503: "There is no capacity at all now.",
    504: "The answer took longer than it may.",
}
_LATER: Final = frozenset({429, 503})
_READS: Final = (400, 401, 403, 404, 405, 408, 413, 429, 500, 503)
_GENERATES: Final = (*_READS, 502, 504)


@dataclass(frozen=True, slots=True)
class _Route:
    """One operation."""

    name: str
    summary: str
    statuses: tuple[int, ...]
    takes: type | None = None
    gives: type | None = None
    streams: str = ""  # what is said of its events
    chunk: str = ""  # the shape of their data
    kind: str = "application/json"
    open: bool = False  # to anyone, without a key


ROUTES: Final[Mapping[tuple[str, str], _Route]] = {
    ("post", "/v1/chat/completions"): _Route(
        "createChatCompletion", "Continue a conversation", _GENERATES, ChatRequest, answers.ChatCompletion,
        _CHAT_EVENTS, "ChatCompletionChunk",
    ),
    ("post", "/v1/completions"): _Route(
        "createCompletion", "Continue a text", _GENERATES, CompletionRequest, answers.Completion,
        _CHAT_EVENTS, "Completion",
    ),
    ("post", "/v1/responses"): _Route(
        "createResponse", "Continue a conversation, in the terms of the Responses API", _GENERATES, ResponsesRequest,
        responses.Response, _RESPONSE_EVENTS, "ResponseEvent",
    ),
    ("get", "/v1/models"): _Route("listModels", "What this key may use", (401, 405, 500), gives=answers.Models),
    ("get", "/v1/models/{model}"): _Route(
        "retrieveModel", "One model", (401, 403, 404, 405, 500), gives=answers.Model
    ),
    ("get", "/v1/streams/{stream}"): _Route(
        "resumeStream", "Go on with a stream behind the last event seen", (400, 401, 404, 405, 429, 500, 503, 504),
        streams=_RESUMED_EVENTS, kind="",
    ),
    ("post", "/v1/moderations"): _Route(
        "createModeration", "Judge texts by the built-in rules", _READS, ModerationRequest, answers.Moderations
    ),
    ("post", "/tokenize"): _Route("tokenize", "Tokens of a text or chat", _READS, TokenizeRequest, answers.Tokens),
    ("post", "/detokenize"): _Route("detokenize", "Text of tokens", _READS, DetokenizeRequest, answers.Words),
    ("get", "/healthz"): _Route("healthz", "Whether the process lives", (405,), kind=_TEXT, open=True),
    ("get", "/readyz"): _Route("readyz", "Whether a request would be served", (405,), kind=_TEXT, open=True),
    ("get", "/metrics"): _Route("metrics", "For Prometheus", (405,), kind=_TEXT, open=True),
    ("get", "/openapi.json"): _Route("openapi", "This document", (405,), gives=dict, open=True),
    ("get", "/docs"): _Route("docs", "These routes as a page", (405,), kind="text/html", open=True),
}  # fmt: skip


_MORE: Final = (answers.Error, answers.ChatCompletionChunk, responses.ResponseEvent)


def document() -> Json:
    """Make the whole document."""
    taken = [route.takes for route in ROUTES.values() if route.takes is not None]
    given = [route.gives for route in ROUTES.values() if route.gives not in (None, dict)]
    _, schemas = msgspec.json.schema_components(taken, ref_template=_REF)
    _let_tags_be_left_out(schemas)
    schemas = msgspec.json.schema_components([*given, *_MORE], ref_template=_REF)[1] | schemas
    paths: dict[str, Json] = {}
    for (method, path), route in ROUTES.items():
        paths.setdefault(path, {})[method] = _operation(path, route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Baton", "version": _version(), "description": "An OpenAI endpoint over a Baton cluster."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key, where the server asks for one."}
            },
        },
        "security": [{"bearer": []}],
    }


def _let_tags_be_left_out(schemas: Json) -> None:
    """A shape that is the only one of its place is known without its tag: msgspec reads it, but describes it else."""
    chosen = {ref for schema in schemas.values() for ref in _chosen_by_tag(schema)}
    for name, schema in schemas.items():
        tag = schema.get("properties", {}).get("type", {})
        if len(tag.get("enum", ())) == 1 and "default" not in tag and _REF.format(name=name) not in chosen:
            schema["required"] = [one for one in schema["required"] if one != "type"]


def _chosen_by_tag(schema: object) -> Iterator[str]:
    """Find the shapes among which a tag chooses."""
    if isinstance(schema, list):
        for one in schema:
            yield from _chosen_by_tag(one)
    elif isinstance(schema, dict):
        yield from schema.get("discriminator", {}).get("mapping", {}).values()
        for one in schema.values():
            yield from _chosen_by_tag(one)


def _operation(path: str, route: _Route) -> Json:
    made: Json = {"operationId": route.name, "summary": route.summary, "responses": _responses(path, route)}
    parameters = _parameters(path, route)
    if parameters:
        made["parameters"] = parameters
    if route.takes is not None:
        schema = {"$ref": _REF.format(name=route.takes.__name__)}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.open:
        made["security"] = []
    return made


def _responses(path: str, route: _Route) -> Json:
    schema: Json = {"type": "string"}
    if route.gives is not None:
        schema = {"type": "object"} if route.gives is dict else {"$ref": _REF.format(name=route.gives.__name__)}
    content: Json = {route.kind: {"schema": schema}} if route.kind else {}
    if route.streams:
        content["text/event-stream"] = {"schema": _event(route.streams, route.chunk)}
    made: Json = {"200": {"description": "As asked for.", "headers": _ALWAYS, "content": content}}
    if path == "/readyz":
        text = {_TEXT: {"schema": {"type": "string"}}}
        made["503"] = {"description": "It would not; the text says why.", "content": text}
    return made | {str(status): _error(status) for status in route.statuses}


def _event(events: str, chunk: str) -> Json:
    """Describe one event of a stream."""
    chunks = _ANY_CHUNK if events is _RESUMED_EVENTS else (chunk,)
    shapes = [{"$ref": _REF.format(name=name)} for name in (*chunks, "Error")]
    data: Json = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": shapes}}
    if events is not _RESPONSE_EVENTS:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    return {
        "type": "object",
        "description": _STREAM.format(events=events),
        "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": data},
        "required": ["data"],
    }


def _error(status: int) -> Json:
    content = {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}
    head = dict(_ALWAYS)
    if status in _LATER:
        head["retry-after"] = _header("Seconds until it is worth coming back, 1 to 59.", {"type": "string"})
        head["x-baton-reason"] = _header("The reason in one word.", {"type": "string"})
    if status == HTTPStatus.UNAUTHORIZED:
        head["www-authenticate"] = _header("Bearer", {"type": "string"})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        head["allow"] = _header("What it may be asked with.", {"type": "string"})
    return {"description": _WHY[status], "headers": head, "content": content}


def _parameters(path: str, route: _Route) -> list[Json]:
    made: list[Json] = []
    if "{model}" in path:
        made.append({"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if "{stream}" in path:
        made.append({"name": "stream", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
        made.append(_given("last-event-id", _LAST_EVENT, {"type": "string"}))
        after = {"name": "after", "in": "query", "required": False, "schema": {"type": "string"}}
        made.append(after | {"description": "The same, for clients that cannot choose their headers."})
    if route.takes is not None:
        text = "The scenario; wins over `model`."
        made.append(_given("x-baton-scenario", text, {"type": "string"}))
    if route.streams and route.takes is not None:
        made.append(_given("last-event-id", f"{_LAST_EVENT} Of a stream: it goes on; the body only says so.", _ID))
        number = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}
        made.append(
            _given("x-baton-timeout", "Seconds for the whole answer; `timeout` in the body is the same.", number)
        )
    return made


def _given(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _header(description: str, schema: Json) -> Json:
    return {"description": description, "required": True, "schema": schema}


_ALWAYS: Final = {"x-request-id": _header("The client's own, or one made here.", {"type": "string"})}


def _version() -> str:
    try:
        return version("baton")
    except PackageNotFoundError:  # run from a folder, not installed
        return "0"
