"""Reads a model's text, cut anywhere, through the parser of a format."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

from services.gateway.tools.formats import ARGS_MISTRAL, ToolFormat, choose
from services.gateway.tools.parsers import open_parser

NAMES = frozenset({"get_weather", "f", "g"})
FORMATS = {
    "hermes": choose("hermes", "", lambda _: None),
    "llama3": choose("llama3", "", lambda _: None),
    "json": choose("json", "", lambda _: None),
    "mistral": choose("mistral", "", lambda _: None),
    "mistral, named": choose("mistral", ARGS_MISTRAL, lambda _: None),
}


def read(
    form: ToolFormat, chunks: Sequence[str], *, eager: bool = True, single: bool = False, cut: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """The words and the calls, as a client joins them; checks the rules of deltas on the way."""
    parser = open_parser(form, NAMES, eager=eager, single=single)
    words, calls, ids = [], [], set()
    for said in chain(*(parser.feed(chunk) for chunk in chunks), parser.finish(cut=cut)):
        words.append(said.text)
        for piece in said.calls:
            if piece.name is not None:
                assert piece.index == len(calls)
                assert piece.id
                ids.add(piece.id)
                calls.append([piece.name, ""])
            assert (piece.id is None) == (piece.name is None)
            assert eager or piece.name is not None
            calls[piece.index][1] += piece.arguments
    assert len(ids) == len(calls)
    return "".join(words), [(name, arguments) for name, arguments in calls]


def objects(calls: Sequence[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]
