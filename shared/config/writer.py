"""Writes a value as TOML text, the form in which a variable of the environment carries it. The reader's other half."""

import json
import math
from collections.abc import Mapping


def written(value: object) -> str:
    """Write a value, tables inline, so that `reader.parsed` makes the same of it. Raises ValueError for what is none.

    TOML has no null, and no table whose keys are not strings.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)  # inf, -inf and nan are TOML, too
        case str():
            return _quoted(value)
        case list() | tuple():
            return f"[{', '.join(map(written, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{_key(key)} = {written(entry)}' for key, entry in value.items())}}}"
        case _:
            raise ValueError(f"{type(value).__name__} is no TOML value")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"the key {key!r} is no string")  # noqa: TRY004  a bad value, whatever its type
    return _quoted(key)


def _quoted(text: str) -> str:
    """Quote as JSON does, which TOML reads, but for one character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
