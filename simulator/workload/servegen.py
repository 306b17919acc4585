"""ServeGen's clients: a folder with one client per chunk, drawn from their windows and histograms, by a seed.

A window of 600 s has a rate, a coefficient of variation of the gaps, and their distribution (Gamma or Weibull) with
shape and scale in seconds; the drawn gaps are scaled to the rate. Lengths come from histograms of six hours each, in
which input and output are drawn apart. Source: ServeGen, arXiv 2505.09999.
"""

import ast
import gzip
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import accumulate
from math import gamma
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from simulator.workload.arrival import Arrival
from simulator.workload.files import TraceError, lines, packed

WINDOW_S: Final = 600.0
Lengths = Callable[[Random, float], tuple[int, int]]
"""Tokens in and out at a time."""


class Window(NamedTuple):
    """Of one client."""

    begin: float
    rate: float
    form: str  # Gamma, Weibull; empty: idle
    shape: float
    scale: float


def clients(folder: Path, seed: int, lengths: Lengths | None = None) -> Iterator[Arrival]:
    """All clients' requests in the order of time; each client is a tenant. `lengths`: where the folder has none."""
    names = sorted({path.name.split("-trace")[0] for path in folder.glob("chunk-*-trace.csv*")}, key=_number)
    if not names:
        raise TraceError(f"{folder} holds no chunk-N-trace.csv: it is no folder of ServeGen's")
    return merge(*(_client(folder, name, seed, lengths) for name in names), key=lambda one: one.at)


def _number(name: str) -> int:
    return int(name.split("-")[1])


def _client(folder: Path, name: str, seed: int, lengths: Lengths | None) -> Iterator[Arrival]:
    rng = Random(f"servegen {seed} {name}")
    drawn = lengths or Histograms.read(folder / f"{name}-dataset.json").draw
    unspent, last = 0.0, -WINDOW_S  # of the gap under way, in mean gaps: it goes on in the next window
    for window in _windows(folder / f"{name}-trace.csv"):
        if window.begin != last + WINDOW_S or not unspent:
            unspent = _gap(window, rng)
        at = window.begin + unspent / window.rate
        while at < window.begin + WINDOW_S:
            prompt, answer = drawn(rng, at)
            yield Arrival(at, max(1, prompt), max(1, answer), tenant=name)
            at += _gap(window, rng) / window.rate
        unspent, last = (at - window.begin - WINDOW_S) * window.rate, window.begin


def _windows(path: Path) -> Iterator[Window]:
    for number, line in lines(path):
        fields = line.split(",")
        try:
            begin, rate, _, form, shape, scale = fields
            window = Window(float(begin), float(rate), form, float(shape), float(scale))
        except ValueError as error:
            raise TraceError(f"{path}, line {number}: start,rate,cv,distribution,shape,scale are wanted") from error
        if window.rate > 0 and window.form in ("Gamma", "Weibull") and window.shape > 0 and window.scale > 0:
            yield window


def _gap(window: Window, rng: Random) -> float:
    """Draw a gap whose mean is 1."""
    shape = window.shape
    if window.form == "Gamma":
        return rng.gammavariate(shape, 1.0) / shape
    return rng.weibullvariate(1.0, shape) / gamma(1.0 + 1.0 / shape)


class Histograms:
    """Lengths by the time of day, as cumulated shares."""

    def __init__(self, found: dict[str, dict[str, str]]) -> None:
        self._begins = sorted(int(begin) for begin in found)
        self._inputs = [_cumulated(found[str(begin)].get("input_tokens", "")) for begin in self._begins]
        self._outputs = [_cumulated(found[str(begin)].get("output_tokens", "")) for begin in self._begins]

    @classmethod
    def read(cls, path: Path) -> "Histograms":
        """Those of one client."""
        found = packed(path)
        raw = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        try:
            return cls(json.loads(raw))
        except (ValueError, SyntaxError, AttributeError, TypeError) as error:
            raise TraceError(f"{found} holds no histograms: {error}") from error

    def draw(self, rng: Random, at: float) -> tuple[int, int]:
        """Tokens in and out at a time; where its six hours have none, those of the nearest before or after."""
        place = max(0, bisect_right(self._begins, at) - 1)
        return _drawn(self._inputs, place, rng), _drawn(self._outputs, place, rng)


Cumulated = tuple[list[int], list[float]]


def _cumulated(text: str) -> Cumulated:
    shares: dict[int, float] = ast.literal_eval(text) if text else {}
    return list(shares), list(accumulate(shares.values()))


def _drawn(of: list[Cumulated], place: int, rng: Random) -> int:
    order = sorted(range(len(of)), key=lambda other: abs(other - place))
    values, sums = next((of[one] for one in order if of[one][0]), ([1], [1.0]))
    return values[min(len(values) - 1, bisect_right(sums, rng.random() * sums[-1]))]
