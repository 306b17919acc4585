"""Reads what NATS clients send: a request, the wish to go on with a stream, the wish to stop one.

Owns the fields that are not OpenAI's. Bytes are untrusted: whatever they are, an error says what is wrong with them.
"""

import json
import reprlib
from typing import Any, Final

import msgpack

from services.gateway.answers.positions import CALL_ID, Position, read_positions
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import convert
from shared.errors import BadRequest, MalformedMessage

VERSION: Final = 1


def read(data: bytes) -> tuple[dict[str, Any], str]:
    """Read a client's map and its key. Raises MalformedMessage, BadRequest."""
    fields = _fields(data)
    key = fields.pop("api_key", "")
    if not isinstance(key, str):
        raise BadRequest("api_key must be a string", "api_key")
    return fields, key


def as_asked(fields: dict[str, Any]) -> ChatRequest | CompletionRequest:
    """Read what is asked. Raises BadRequest."""
    try:
        json.dumps(fields.get("tools"))  # their schemas become JSON later, where nobody asks whether they can
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"tools holds what JSON cannot say: {error}", "tools") from None
    if "messages" in fields:
        return convert(fields, ChatRequest)
    return convert(fields, CompletionRequest)


def read_resume(fields: dict[str, Any]) -> tuple[str, list[Position]]:
    """Read which stream is to go on, and behind what. Raises BadRequest."""
    call_id, after = fields.pop("resume"), fields.pop("after", "")
    if not isinstance(call_id, str) or not CALL_ID.match(call_id):
        raise BadRequest("resume must be the id of a stream, as its first map says it", "resume")
    if call_id.startswith("resp_"):
        raise BadRequest("a response's stream goes on over HTTP, where it began", "resume")
    if not isinstance(after, str):
        raise BadRequest("after must be the `at` of the last map seen; of several choices, joined by commas", "after")
    if fields:
        name = next(iter(fields))
        raise BadRequest(f"Unknown parameter: '{name}'; a stream goes on as it began", name)
    return call_id, read_positions(after) if after else []


def read_cancel(data: bytes) -> str:
    """Read what a client wants stopped. Raises MalformedMessage, BadRequest."""
    name = _fields(data).get("cancel")
    if not isinstance(name, str) or not name:
        raise BadRequest("cancel must be the id of a request, or the inbox that it is answered on", "cancel")
    return name


def _fields(data: bytes) -> dict[str, Any]:
    """Read a map of the client protocol, in our version of it."""
    try:
        fields = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # TypeError: a list as a map's key
        raise MalformedMessage("a MessagePack map", len(data), str(error)) from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise MalformedMessage("a MessagePack map with string keys", len(data))
    version = fields.pop("v", VERSION)
    if version != VERSION:
        raise BadRequest(f"v is {reprlib.repr(version)}; this gateway speaks version {VERSION}", "v")
    return fields
