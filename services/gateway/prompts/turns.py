"""From a client's messages to what chat templates read.

Owns the forms that templates expect: arguments as objects, ids as the model family writes them, and for a template that
has no place for functions the same conversation in words. Pure.
"""

import hashlib
import re
import string
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.gateway.api.messages import ChatMessage
from services.gateway.tools.formats import ToolFormat, instructions

Turn = dict[str, Any]

_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET: Final = string.ascii_letters + string.digits


def turns_of(messages: Sequence[ChatMessage], form: ToolFormat) -> list[Turn]:
    """Make the turns for a template that knows of functions, or for a conversation without any."""
    names: dict[str, str] = {}
    turns = []
    for message in messages:
        turn: Turn = {"role": _role(message), "content": message.text}
        if message.name:
            turn["name"] = message.name
        if message.reasoning_content is not None:
            turn["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            names |= {call.id: call.function.name for call in message.tool_calls}
            turn["tool_calls"] = [
                {
                    "id": _id(call.id, form),
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": _object(call.function.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            turn["tool_call_id"] = _id(message.tool_call_id, form)
            turn.setdefault("name", names.get(message.tool_call_id, ""))
        turns.append(turn)
    return turns


def in_words(messages: Sequence[ChatMessage], form: ToolFormat, tools: Sequence[dict[str, Any]]) -> list[Turn]:
    """Make the turns for a template that knows of no functions: descriptions, calls and results are said in words.

    Turns of one role that follow each other become one, since such templates often demand that roles alternate.
    """
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or ()}
    told = [("system", instructions(form, tools))] if tools else []
    for message in messages:
        role, text = _role(message), message.text
        if message.tool_calls:
            calls = form.calls([(call.function.name, call.function.arguments) for call in message.tool_calls])
            text = f"{text}\n{calls}" if text else calls
        if role == "tool":
            role, text = "user", f"Result of {names.get(message.tool_call_id or '', 'the function')}:\n{text}"
        told.append((role, text))
    # the client's own instructions come first
    if tools and len(told) > 1 and told[1][0] == "system":
        told[0], told[1] = told[1], told[0]
    return _joined(told)


def _joined(told: list[tuple[str, str]]) -> list[Turn]:
    turns: list[Turn] = []
    for role, text in told:
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return turns


def _role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _object(arguments: str) -> object:
    """Arguments as an object; what is no JSON object stays as it was written."""
    try:
        made = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return made if isinstance(made, dict) else arguments


def _id(identity: str, form: ToolFormat) -> str:
    """Mistral's templates refuse ids of any other form; the same id always becomes the same one."""
    if form.name != "mistral" or _SHORT_ID.fullmatch(identity):
        return identity
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])
