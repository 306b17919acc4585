"""The rows of vLLM's batch that want more than the likeliest token, and the draws of a step. Imports no vLLM.

Of a row that it serves it leaves the drawn token alone, so that vLLM takes that. No exception leaves it: one would kill
EngineCore and every request in it. A row that cannot be served is made to end, and the others go on.
"""

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shared.engine.sampling.draw import Draw, choose
from shared.engine.sampling.masks import Allowed, Bits, Bound, Masks
from shared.engine.sampling.place import Place
from shared.engine.vllm_engine.draws import read_wanted
from shared.engine.vllm_engine.inside.rows import Compile, Row
from shared.errors import BadRequest

Troubles = deque[tuple[str, str]]
"""The key of a sequence, where it is known, and what went wrong."""

log = logging.getLogger(__name__)


class Added(NamedTuple):
    """A request that comes into the batch."""

    place: int
    extra_args: dict[str, Any] | None
    prompt: list[int]
    output: list[int]  # vLLM's own list, which grows


class Moved(NamedTuple):
    """A request that changes its row."""

    source: int
    target: int
    swaps: bool  # with the one that is there; else that one is gone


class Batch:
    """Of one rank. All ranks draw the same, for they see the same logits and the same tokens."""

    def __init__(self, place: Place, vocabulary: int, compiles: Compile, troubles: Troubles) -> None:
        """`troubles` gets those that fail for no fault of theirs: what stops them looks like an end of the text."""
        self._place = place
        self._vocabulary = vocabulary
        self._compiles = compiles
        self._masks = Masks()
        self._rows: dict[int, Row] = {}
        self._troubles = troubles

    def update(self, removed: Iterable[int], added: Iterable[Added], moved: Iterable[Moved]) -> None:
        """Follow a change of vLLM's batch; in this order."""
        rows = self._rows
        for index in removed:
            rows.pop(index, None)
        for one in added:
            rows.pop(one.place, None)
            row = self._row(one)
            if row is not None:
                rows[one.place] = row
        for source, target, swaps in moved:
            mover, other = rows.pop(source, None), rows.pop(target, None)
            if mover is not None:
                rows[target] = mover
            if swaps and other is not None:
                rows[source] = other

    def apply(self, logits: Tensor) -> None:
        """Draw for all rows of `logits` [batch, vocabulary], float32, in place. Rows that want nothing cost nothing."""
        if self._rows:
            self._try(logits, list(self._rows))

    def _row(self, added: Added) -> Row | None:
        try:
            wanted = read_wanted(added.extra_args, self._vocabulary)
            return None if wanted is None else Row(wanted, added.prompt, added.output, self._compiles)
        except Exception as error:
            log.exception("a request cannot be drawn for as it asks")
            self._troubles.append(("", repr(error)))
            return None

    def _try(self, logits: Tensor, indexes: Sequence[int]) -> None:
        """All at once; after a failure one by one, to find whose it is."""
        try:
            self._serve(logits, indexes)
        except Exception as error:
            if len(indexes) > 1:
                for index in indexes:
                    self._try(logits, [index])
                return
            row = self._rows[indexes[0]]
            if not row.broken:
                log.exception("nothing can be drawn for %s", row.wanted.key)
                self._troubles.append((row.wanted.key, repr(error)))
                row.broken = True
                self._try(logits, indexes)

    def _serve(self, logits: Tensor, indexes: Sequence[int]) -> None:
        drawing = [index for index in indexes if self._follow(self._rows[index])]
        allowed = self._masks.allowed(self._bound(drawing))
        for index in allowed.refused:
            self._rows[index].broken = True
        self._force(logits, [index for index in indexes if self._rows[index].broken or self._rows[index].over])
        drawing = [index for index in drawing if not self._rows[index].broken and not self._rows[index].over]
        for start in range(0, len(drawing), self._place.sampling_rows):
            self._draw(logits, drawing[start : start + self._place.sampling_rows], allowed)

    def _follow(self, row: Row) -> bool:
        """Whether it has something to draw. A text that leads nowhere ends: the worker knows why by following it."""
        if row.broken:
            return False
        try:
            row.follow()
        except BadRequest:
            row.broken = True
            return False
        return not row.stops

    def _bound(self, indexes: Sequence[int]) -> dict[int, Bound]:
        found = {index: self._rows[index].bound for index in indexes}
        return {index: bound for index, bound in found.items() if bound is not None}

    def _draw(self, logits: Tensor, indexes: Sequence[int], allowed: Allowed) -> None:
        rows = torch.tensor(indexes, device=logits.device)
        draws = [_asked(self._rows[index], allowed.rows.get(index)) for index in indexes]
        _leave(logits, rows, choose(logits[rows], draws, self._place))

    def _force(self, logits: Tensor, indexes: Sequence[int]) -> None:
        """Have vLLM end these. One that no token ends goes on until its length."""
        stops = {index: stop for index in indexes if (stop := self._rows[index].wanted.stop) is not None}
        if stops:
            rows = torch.tensor(list(stops), device=logits.device)
            _leave(logits, rows, torch.tensor(list(stops.values()), device=logits.device))


def _asked(row: Row, allowed: Bits | None) -> Draw:
    """A row of allowed tokens has the bans in it."""
    bans = row.bans if allowed is None else ()
    return Draw(row.wanted.sampling, row.position, row.history, bans, allowed)


def _leave(logits: Tensor, rows: Tensor, tokens: Tensor) -> None:
    """In these rows the token alone. Where there is none, since the model's output is not a number, it stays so."""
    only = logits.new_full((len(rows), logits.shape[1]), -math.inf)
    only.masked_fill_((tokens < 0)[:, None], math.nan)
    only.scatter_(1, tokens.clamp(min=0)[:, None], 0.0)
    logits[rows] = only
