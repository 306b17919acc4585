"""Reads a body or a message as a request shape, and says what is wrong with it in the client's words."""

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from services.gateway.api.parameters import Parameters
from services.gateway.api.responses import ResponsesRequest
from services.gateway.api.tokens import TokenizeRequest
from shared.errors import BadRequest

_UNSUPPORTED_NAMES: Final = (
    "audio background cache_salt chat_template context_management documents echo function_call functions "
    "include_reasoning include_stop_str_in_output input instructions length_penalty mm_processor_kwargs moderation "
    "prediction prompt_cache_options prompt_cache_retention prompt_logprobs reasoning skip_special_tokens "
    "spaces_between_special_tokens structural_tag truncate_prompt_tokens use_beam_search web_search_options "
    "whitespace_pattern"
)
UNSUPPORTED: Final = frozenset(_UNSUPPORTED_NAMES.split())
"""Names other servers know and this one does not honour: told apart from a misspelling."""

DEEPEST: Final = 200
"""Objects and lists inside each other. Far from the interpreter's own limit, which moves with whoever recurses."""

T = TypeVar("T")

_HOLDERS: Final = (dict, list, msgspec.Struct)
_PATH: Final = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")


def parse(body: bytes, shape: type[T]) -> T:
    """Read a JSON body as `shape`. Raises BadRequest that names the parameter at fault."""
    try:
        request = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8: {error.reason} at byte {error.start} of a string") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if body.count(b"{") + body.count(b"[") > DEEPEST:  # counted in no time
        _check_depth(request, "", DEEPEST)
    return _checked(request)


def convert(fields: dict[str, Any], shape: type[T]) -> T:
    """Read the fields of a message as `shape`. Raises BadRequest that names the parameter at fault."""
    try:
        request = msgspec.convert(fields, type=shape, str_keys=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except RecursionError:
        raise BadRequest("the message is nested too deeply") from None
    _check_depth(request, "", DEEPEST)
    return _checked(request)


def _check_depth(value: object, where: str, most: int) -> None:
    """Refuse a parameter that is nested more deeply than it may be. Recurses into our own shapes alone."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if isinstance(one := getattr(value, name), _HOLDERS):
                _check_depth(one, f"{where}.{name}".lstrip("."), most - 1)
    elif isinstance(value, list) and any(isinstance(one, msgspec.Struct) for one in value):
        for place, one in enumerate(value):
            if isinstance(one, _HOLDERS):
                _check_depth(one, f"{where}[{place}]", most - 1)
    elif _deeper(value, most):
        raise BadRequest(f"'{where}' is nested too deeply; {DEEPEST} levels are allowed", where)


def _deeper(value: object, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [one for holder in level for one in _inside(holder) if isinstance(one, _HOLDERS)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _fault(message: str) -> BadRequest:
    """Say what msgspec found, with the parameter's own name."""
    where = ""
    if path := _PATH.search(message):
        where = path[2]
        message = message[: path.start()]
    if unknown := _UNKNOWN.match(message):
        name = f"{where}.{unknown[1]}".lstrip(".")
        kind = "Unsupported" if unknown[1] in UNSUPPORTED else "Unknown"
        return BadRequest(f"{kind} parameter: '{name}'", name)
    if missing := _MISSING.match(message):
        name = f"{where}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{name}'", name)
    if message.startswith("Expected `null`"):
        return BadRequest(f"Unsupported parameter: '{where}'", where)
    return BadRequest(
        f"Invalid value for '{where}': {message}" if where else f"Invalid request: {message}", where or None
    )


def _checked(request: T) -> T:
    if isinstance(request, Parameters | ResponsesRequest | TokenizeRequest):
        request.check()
    return request
