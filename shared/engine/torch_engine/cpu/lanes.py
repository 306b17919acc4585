"""Lanes: copies of what decoding sequences see of the cache, kept up as they go on, so that a step gathers no blocks.

Gathering costs a processor about as much as attending. A sequence has one lane per kind of layer, as long as what
`attention.py` reads for its position; it changes lanes where that length or its first key changes. The cache stays
complete: where there is no memory for lanes, sequences are gathered as everywhere else.

Owns who has which lane, and the order of rows that this brings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from shared.engine.torch_engine.architecture import LayerKind
from shared.engine.torch_engine.attention import KEY_STEP, Geometry, Ints, Span
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cpu.bank import Abreast, Bank
from shared.engine.torch_engine.sequence import Run

Reach = tuple[int, int]
"""The first key that is read, and how many."""
SPARE = 4
"""There is memory for less than so many times the lanes in use."""


@dataclass(slots=True, eq=False)
class Seats:
    """The lanes of a bank. Those in use come first."""

    bank: Bank
    runs: list[Run] = field(default_factory=list)  # whose they are
    origins: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # their first keys
    rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # of the step
    straight: bool = True  # the rows follow each other

    def settle(self, staying: set[Run], comers: list[Run], reach: Mapping[Run, Reach]) -> list[int]:
        """Seat the comers, in the places of those that leave; which lanes are to be filled."""
        holes = [lane for lane, run in enumerate(self.runs) if run not in staying]
        number = len(self.runs) - len(holes) + len(comers)
        if not number <= self.bank.capacity < SPARE * number:
            self.bank.resize(max(number + number // 2, len(self.runs)))
        lanes = [*holes[: len(comers)], *range(len(self.runs), number)]
        for lane, run in zip(lanes, comers, strict=True):
            self.runs[lane : lane + 1] = [run]
        for hole in reversed(holes[len(comers) :]):
            last = self.runs.pop()
            if hole < len(self.runs):
                self.bank.move(len(self.runs), hole)
                self.runs[hole] = last
        self.bank.use(number)
        self.origins = np.array([reach[run][0] for run in self.runs], np.int64)
        return lanes


class Kind:
    """The lanes of one kind of layer."""

    def __init__(
        self, kind: LayerKind, layers: list[int], cache: Cache, geometry: Geometry, dtype: torch.dtype
    ) -> None:
        self.kind = kind
        self.seats: list[Seats] = []  # by their length
        self._layers = layers
        self._cache = cache
        self._geometry = geometry
        self._dtype = dtype
        layout = cache.layout
        self.key_bytes = len(layers) * 2 * layout.kv_heads * layout.head_dim * layout.item_bytes
        self._reach: dict[Run, Reach] = {}

    def settle(self, reach: dict[Run, Reach], broken: set[Run], positions: Mapping[Run, int]) -> None:
        """Give these sequences lanes, and no others. What those had that are broken is not theirs any more."""
        staying = {run for run, old in self._reach.items() if run not in broken and reach.get(run) == old}
        comers: dict[int, list[Run]] = {}
        for run, (_, keys) in reach.items():
            if run not in staying:
                comers.setdefault(keys, []).append(run)
        known = {seats.bank.keys for seats in self.seats}
        self.seats += [Seats(self._bank(keys)) for keys in comers if keys not in known]
        for seats in self.seats:
            coming = comers.get(seats.bank.keys, [])
            self._fill(seats, seats.settle(staying, coming, reach), positions)
        self.seats = sorted((seats for seats in self.seats if seats.runs), key=lambda seats: seats.bank.keys)
        self._reach = reach

    def seat(self, row_of: Mapping[Run, int]) -> None:
        """Say in which rows of the step the sequences are."""
        for seats in self.seats:
            seats.rows = np.array([row_of[run] for run in seats.runs], np.int64)
            seats.straight = bool((np.diff(seats.rows) == 1).all())

    def parts(self, positions: Ints) -> list[Abreast]:
        """For a step with these positions by row."""
        result = []
        for seats in self.seats:
            places = seats.bank.advance(torch.from_numpy(positions[seats.rows] - seats.origins))
            start, rows = (int(seats.rows[0]), None) if seats.straight else (0, torch.from_numpy(seats.rows))
            result.append(Abreast(seats.bank, start, start + len(seats.rows), rows, places, self._geometry.rows))
        return result

    def _bank(self, keys: int) -> Bank:
        return Bank(self.kind, self._layers, keys, self._cache, geometry=self._geometry, dtype=self._dtype)

    def _fill(self, seats: Seats, lanes: list[int], positions: Mapping[Run, int]) -> None:
        for start in range(0, len(lanes), at_once := self._geometry.at_once(seats.bank.keys)):
            some = lanes[start : start + at_once]
            at = [positions[seats.runs[lane]] for lane in some]
            spans = [
                Span(position, position + 1, seats.runs[lane].blocks) for lane, position in zip(some, at, strict=True)
            ]
            seats.bank.fill(some, spans, seats.origins[some], np.array(at))


class Lanes:
    """`nbytes`: so much memory may be in use."""

    def __init__(
        self, layers: tuple[LayerKind, ...], cache: Cache, geometry: Geometry, dtype: torch.dtype, nbytes: int
    ) -> None:
        of_kind = {kind: [n for n, other in enumerate(layers) if other == kind] for kind in dict.fromkeys(layers)}
        # rows are in the order of the kind that most layers have: those of others are put in order in each layer
        kinds = sorted(of_kind, key=lambda kind: -len(of_kind[kind]))
        self._kinds = [Kind(kind, of_kind[kind], cache, geometry, dtype) for kind in kinds]
        self._geometry = geometry
        self._nbytes = nbytes
        self._decodes: list[Run] = []  # of the last step
        self._positions: Ints = np.zeros(0, np.int64)
        self._reaches: list[tuple[Ints, Ints]] = []
        self._seated: list[Run] = []  # in the order of rows
        self._order: Ints = np.zeros(0, np.int64)  # their places in `decodes`
        self._aside: list[Run] = []  # the others

    def follow(self, decodes: list[Run]) -> tuple[list[Run], list[Run]]:
        """Take in a step's sequences: which have lanes, in the order of rows, and which have none."""
        positions: Ints = np.fromiter((run.computed for run in decodes), np.int64, len(decodes))
        on = decodes == self._decodes and np.array_equal(positions, self._positions + 1)
        if not on or not (positions % KEY_STEP).all():  # a reach changes nowhere else
            reaches = [self._geometry.reach(kind.kind, positions) for kind in self._kinds]
            if not on or not all(map(np.array_equal, _flat(reaches), _flat(self._reaches))):
                self._arrange(decodes, positions, reaches)
            self._reaches = reaches
        self._decodes, self._positions = decodes, positions
        return self._seated, self._aside

    def parts(self) -> dict[LayerKind, list[Abreast]]:
        """What the sequences with lanes attend to in the step."""
        positions = self._positions[self._order]
        return {kind.kind: kind.parts(positions) for kind in self._kinds}

    def _arrange(self, decodes: list[Run], positions: Ints, reaches: list[tuple[Ints, Ints]]) -> None:
        at = dict(zip(decodes, positions.tolist(), strict=True))
        went = zip(self._decodes, (self._positions + 1).tolist(), strict=True)
        broken = {run for run, position in went if at.get(run) != position}
        bytes_of = sum(keys * kind.key_bytes for kind, (_, keys) in zip(self._kinds, reaches, strict=True))
        number = int(np.searchsorted(np.cumsum(bytes_of), self._nbytes, side="right"))  # the oldest, while they fit
        self._aside = sorted(decodes[number:], key=at.__getitem__)
        for kind, (origins, keys) in zip(self._kinds, reaches, strict=True):
            reach = dict(zip(decodes[:number], zip(origins.tolist(), keys.tolist(), strict=True), strict=False))
            kind.settle(reach, broken, at)
        self._seated = [run for seats in self._kinds[0].seats for run in seats.runs]
        place_of = {run: place for place, run in enumerate(decodes)}
        self._order = np.array([place_of[run] for run in self._seated], np.int64)
        row_of = {run: row for row, run in enumerate(self._seated)}
        for kind in self._kinds:
            kind.seat(row_of)


def _flat(reaches: list[tuple[Ints, Ints]]) -> list[Ints]:
    return [array for reach in reaches for array in reach]
