"""Binds TOML tables and BATON_* variables to frozen dataclasses, collecting every fault instead of stopping at one.

Owns the rules of reading; knows no key. The keys are in `shared/config.py`.
"""

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Table = dict[str, Any]
PREFIX = "BATON_"
BETWEEN = "__"
LONGEST_SHOWN = 60
LARGEST_EXACT = 1 << 53  # whole number that a float holds


def setting(
    default: T,
    *,
    between: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], str] | None = None,
    secret: bool = False,
) -> T:
    """Describe one key: its default, its bounds, and whether its value is a secret (never printed, never echoed).

    `check` returns what is wrong with a value, as the end of a sentence, or nothing.
    """
    metadata = {"between": between, "choices": choices, "check": check, "secret": secret}
    field: T = dataclasses.field(default=default, repr=not secret, metadata=metadata)
    return field


class Text(str):
    """A value from the environment: text, whose type is known only where it is bound to a key."""

    __slots__ = ()


class Reader:
    """Reads one configuration; `faults` holds a sentence for each mistake."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def section(self, kind: type[T], table: object, path: str = "") -> T | None:
        """Fill the dataclass `kind` from a table. None when a key without a default is missing or wrong."""
        if not isinstance(table, dict):
            self.faults.append(f"{path} is {_shown(table)}; make it a table ([{path}])")
            return None
        hints = get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        for name in table:
            if name not in fields:
                self.faults.append(_unknown(_join(path, str(name)), str(name), list(fields)))
        values: Table = {}
        complete = True
        for name, field in fields.items():
            where = _join(path, name)
            if name in table:
                before = len(self.faults)
                value = self._value(hints[name], table[name], where, field.metadata)
                if len(self.faults) == before:
                    values[name] = value
                else:
                    complete = complete and _has_default(field)
            elif not _has_default(field):
                complete = False
                self.faults.append(f"{where} is missing; set it in the file or as {variable(where)}")
        return kind(**values) if complete else None

    def _value(self, hint: object, value: object, path: str, rules: Mapping[str, Any]) -> object:
        origin = get_origin(hint)
        if isinstance(value, Text) and hint is not str and origin is not tuple:
            value = parsed(value)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.section(hint, value, path)
        if origin is dict:
            return self._table(get_args(hint)[1], value, path, rules)
        if origin is tuple:
            return self._list(value, path, rules)
        return self._scalar(hint if isinstance(hint, type) else str, value, path, rules)

    def _table(self, inner: object, value: object, path: str, rules: Mapping[str, Any]) -> object:
        if not isinstance(value, dict):
            self.faults.append(f"{path} is {_shown(value)}; make it a table ([{path}])")
            return None
        result: Table = {}
        for name, entry in value.items():
            if problem := rules.get("check") and rules["check"](name):
                self.faults.append(f"{path}.{name}: the name {problem}")
                continue
            result[name] = _plain(entry) if inner is Any else self._value(inner, entry, f"{path}.{name}", {})
        return result

    def _list(self, value: object, path: str, rules: Mapping[str, Any]) -> object:
        entries = parsed(value) if isinstance(value, Text) else value
        if isinstance(value, Text) and not isinstance(entries, list):
            entries = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            shown = "not one" if rules.get("secret") else _shown(value)
            self.faults.append(f"{path} takes a list of strings, and this is {shown}")
            return None
        return tuple(entries)

    def _scalar(self, hint: type, value: object, path: str, rules: Mapping[str, Any]) -> object:
        shown = "the value given" if rules.get("secret") else _shown(value)
        if hint is float and type(value) is int and abs(value) <= LARGEST_EXACT:
            value = float(value)
        if isinstance(value, Text):
            value = str(value)
        if type(value) is not hint:
            self.faults.append(f"{path} takes {_KINDS[hint]}, and {shown} is not one")
            return None
        problem = (isinstance(value, int | float | str) and _out_of_bounds(value, rules)) or (
            rules.get("check") and rules["check"](value)
        )
        if problem:
            self.faults.append(f"{path}: {shown} {problem}")
            return None
        return value


_KINDS: Mapping[type, str] = types.MappingProxyType(
    {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
)


def _plain(value: object) -> object:
    """Free-form values: variables become what TOML makes of them, at every depth."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return parsed(value) if isinstance(value, Text) else value


def _out_of_bounds(value: float | str, rules: Mapping[str, Any]) -> str:
    if rules.get("choices") and value not in rules["choices"]:
        return f"is none of {', '.join(rules['choices'])}"
    if isinstance(value, str):
        return ""
    if not math.isfinite(value):
        return "is not finite"
    least, most = rules.get("between") or (value, value)
    if value < least:
        return f"is below {least:g}; give at least that"
    if value > most:
        return f"is above {most:g}; give at most that"
    return ""


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _unknown(where: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
    return f"{where} is no key; {hint}"


def variable(path: str) -> str:
    """Name the environment variable of a key: `scenario.chat.model` is BATON_SCENARIO__CHAT__MODEL."""
    return PREFIX + path.replace(".", BETWEEN).replace("-", "_").upper()


def parsed(text: str) -> object:
    """Take a variable's text as a TOML value (`8`, `true`, `[1, 2]`, `"x"`); text that is none is taken as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def merged(table: Table, path: list[str], value: object) -> Table:
    """Copy `table` with `value` at `path`."""
    head, *rest = path
    if not rest:
        return {**table, head: value}
    inner = table.get(head, {})
    return {**table, head: merged(inner if isinstance(inner, dict) else {}, rest, value)}
