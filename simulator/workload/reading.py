"""Traces of others, and our own form: each recognised by its content.

Azure's CSV (TIMESTAMP, ContextTokens, GeneratedTokens), Mooncake's JSON lines (timestamp in ms, input_length,
output_length, hash_ids), ours (at in seconds, input_tokens, output_tokens; where wanted blocks, scenario, tenant,
priority), a ServeGen folder of clients. Times count from the first request on, and must not go back.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import structs

from simulator.workload.arrival import Arrival
from simulator.workload.files import TraceError, lines
from simulator.workload.mixing import changed
from simulator.workload.servegen import clients

MOONCAKE_BLOCK: Final = 512
"""Tokens of one of its hash ids."""
MOST_TOKENS: Final = 10_000_000
AZURE_HEAD: Final = "TIMESTAMP,ContextTokens,GeneratedTokens"
OURS: Final = {"at", "input_tokens", "output_tokens", "blocks", "scenario", "tenant", "priority"}
FORMS: Final = (
    f"Azure's CSV ({AZURE_HEAD}), Mooncake's JSON lines (timestamp, input_length, output_length, hash_ids), or "
)
FORMS_OURS: Final = 'lines like {"at": 0.5, "input_tokens": 900, "output_tokens": 120}'


def read_trace(path: Path, *, seed: int = 0, spread: bool = False) -> Iterator[Arrival]:
    """The arrivals of a trace, lazily. Raises TraceError, here or while it is read.

    `spread`: requests with one and the same time are spread at random, by the seed, until the next time: Mooncake's
    conversations come in steps of three seconds.
    """
    if path.is_dir():
        return clients(path, seed)
    numbered = lines(path)
    first = next(numbered, None)
    if first is None:
        raise TraceError(f"{path} is empty")
    if first[1].startswith("{"):
        arrivals = _json(path, _again(first, numbered))
    elif first[1].replace(" ", "") == AZURE_HEAD:
        arrivals = _azure(path, numbered)
    else:
        raise TraceError(f"{path} is no trace that is known: {FORMS}{FORMS_OURS}")
    ordered = _in_order(path, arrivals)
    return _spread(ordered, seed) if spread else ordered


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> int:
    """Write our own form; how many."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, arrival in enumerate(arrivals, 1):  # noqa: B007
            told = {
                key: value for key, value in structs.asdict(arrival).items() if value not in ((), "", 0) or key == "at"
            }
            file.write(json.dumps(told) + "\n")
    return number


def _again(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _azure(path: Path, numbered: Iterator[tuple[int, str]]) -> Iterator[Arrival]:
    begin: float | None = None
    for number, line in numbered:
        where = f"{path}, line {number}"
        fields = line.split(",")
        if len(fields) != 3:  # noqa: PLR2004
            raise TraceError(f"{where}: three fields are wanted, not {len(fields)}")
        at = _moment(where, fields[0])
        begin = at if begin is None else begin
        yield _arrival(where, {"at": at - begin, "input_tokens": fields[1], "output_tokens": fields[2]})


def _moment(where: str, text: str) -> float:
    """Seconds of a date and time, to the microsecond; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError as error:
        raise TraceError(f"{where}: {text!r:.60} is no date and time") from error


def _json(path: Path, numbered: Iterator[tuple[int, str]]) -> Iterator[Arrival]:
    begin: float | None = None
    for number, line in numbered:
        where = f"{path}, line {number}"
        try:
            found = json.loads(line)
        except ValueError as error:
            raise TraceError(f"{where}: no JSON: {error}") from error
        if not isinstance(found, dict):
            raise TraceError(f"{where}: an object is wanted")
        told = _mooncake(where, found) if "hash_ids" in found else found
        if unknown := sorted(told.keys() - OURS):
            raise TraceError(f"{where}: unknown: {', '.join(unknown)}; a line is {FORMS_OURS}")
        arrival = _arrival(where, told)
        begin = arrival.at if begin is None else begin
        yield arrival if not begin else _arrival(where, {**told, "at": arrival.at - begin})


def _mooncake(where: str, found: dict[str, Any]) -> dict[str, Any]:
    try:
        seconds = float(found["timestamp"]) / 1000
        told = {"at": seconds, "input_tokens": found["input_length"], "output_tokens": found["output_length"]}
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{where}: timestamp, input_length and output_length are wanted") from error
    blocks = found["hash_ids"]
    if not isinstance(blocks, list) or len(blocks) != -(-_whole(told["input_tokens"]) // MOONCAKE_BLOCK):
        raise TraceError(
            f"{where}: hash_ids has one id for each {MOONCAKE_BLOCK} tokens of the prompt, the last included"
        )
    return {**told, "blocks": blocks}


def _arrival(where: str, told: dict[str, Any]) -> Arrival:
    """Check and make one. An answer of no token counts as one of one: the prompt was computed all the same."""
    try:
        at = float(told["at"])
        prompt, answer = _whole(told["input_tokens"]), _whole(told["output_tokens"])
        blocks = tuple(_whole(block) for block in told.get("blocks", ()))
        others = {name: str(told[name]) for name in ("scenario", "tenant") if name in told}
        priority = _whole(told.get("priority", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{where}: {error!r:.80}; a line is {FORMS_OURS}") from error
    if not isfinite(at) or not 1 <= prompt <= MOST_TOKENS or not 0 <= answer <= MOST_TOKENS:
        raise TraceError(f"{where}: times are finite, a prompt has 1 to {MOST_TOKENS} tokens, an answer no more")
    return Arrival(at, prompt, max(1, answer), blocks, priority=priority, **others)


def _whole(value: object) -> int:
    """A whole number, as JSON or CSV has it. Raises ValueError or TypeError."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no whole number")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    return int(value)


def _in_order(path: Path, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    last = 0.0
    for number, arrival in enumerate(arrivals, 1):
        if arrival.at < last:
            raise TraceError(f"{path}: request {number} comes before the one that is told before it; sort it by time")
        last = arrival.at
        yield arrival


def _spread(arrivals: Iterator[Arrival], seed: int) -> Iterator[Arrival]:
    """Spread those of one time until the next; those of the last time over as long as the time before it."""
    rng, step, before = Random(f"spread {seed}"), 0.0, list[Arrival]()
    for at, group in groupby(arrivals, key=lambda one: one.at):
        if before:
            step = at - before[0].at
            yield from _over(before, step, rng)
        before = list(group)
    yield from _over(before, step, rng)


def _over(group: list[Arrival], seconds: float, rng: Random) -> list[Arrival]:
    places = sorted(rng.random() for _ in group)
    return [changed(one, one.at + seconds * place) for one, place in zip(group, places, strict=True)]
