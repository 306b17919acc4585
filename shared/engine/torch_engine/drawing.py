"""What the rows of a step's logits are asked for, and the draws of all of them.

Owns the masks of constrained sequences. Rows that want the likeliest token, and nothing else, cost no Python each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.engine import Alternatives
from shared.engine.sampling.draw import Draw, Samples, alternatives, sample
from shared.engine.sampling.likeliest import likeliest
from shared.engine.sampling.masks import Allowed, Masks
from shared.engine.torch_engine.device import Device, Fetch
from shared.engine.torch_engine.sequence import Run
from shared.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Reports:
    """Log probabilities on their way to the host."""

    places: list[int]  # whose they are
    draws: list[Draw]
    values: Fetch
    names: Fetch

    def read(self) -> dict[int, Alternatives]:
        """By place."""
        rows = zip(self.places, self.draws, self.values.read(), self.names.read(), strict=True)
        return {place: alternatives(values, names, draw) for place, draw, values, names in rows}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for a step's samples, on its way to the host."""

    tokens: Fetch  # -1 where the model's output is not a number
    reports: Reports | None
    refused: dict[int, BadRequest]  # by place: why nothing can be drawn

    def read(self) -> tuple[list[int], dict[int, Alternatives]]:
        """Wait for the tokens, and for what is reported, by place."""
        return self.tokens.read(), {} if self.reports is None else self.reports.read()


class Drawing:
    """Draws for one engine."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._masks = Masks()

    @torch.inference_mode()
    def draw(self, logits: Tensor, samples: list[Run], greedy: Tensor | None = None) -> tuple[Tensor, Drawn]:
        """The next token of each of the samples: on the device, [rows], and for the host. Does not wait for the device.

        `logits` [rows, vocabulary] may have more rows than there are samples, and are overwritten where all their rows
        are asked for something; `greedy` are their likeliest tokens, where those are known. The runs' `computed`
        must count the step.
        """
        asking = [place for place, run in enumerate(samples) if not run.plain]
        if not asking:
            tokens = likeliest(logits) if greedy is None else greedy
            return tokens, Drawn(self._fetch(tokens, samples), None, {})
        allowed = self._allowed(samples, asking)
        draws = [_draw(samples[place], allowed, place) for place in asking]
        tokens, made = self._sample(logits, asking, draws, greedy)
        reports = None
        if made.likelihoods is not None:
            reports = Reports(
                [asking[row] for row in made.reported],
                [draws[row] for row in made.reported],
                self._device.fetch(made.likelihoods.values),
                self._device.fetch(made.likelihoods.names),
            )
        return tokens, Drawn(self._fetch(tokens, samples), reports, allowed.refused)

    def _sample(
        self, logits: Tensor, asking: list[int], draws: list[Draw], greedy: Tensor | None
    ) -> tuple[Tensor, Samples]:
        if len(asking) == len(logits):
            made = sample(logits, draws, self._device)
            return made.tokens, made
        tokens = likeliest(logits) if greedy is None else greedy.clone()
        rows = self._device.upload(torch.tensor(asking))
        made = sample(logits[rows], draws, self._device)
        return tokens.index_copy_(0, rows, made.tokens), made

    def _fetch(self, tokens: Tensor, samples: list[Run]) -> Fetch:
        return self._device.fetch(tokens[: len(samples)])

    def _allowed(self, samples: list[Run], asking: list[int]) -> Allowed:
        """An accelerator runs the model meanwhile."""
        bound = {place: bound for place in asking if (bound := samples[place].bound()) is not None}
        return self._masks.allowed(bound)


def _draw(run: Run, allowed: Allowed, place: int) -> Draw:
    """What the run's next token is to be. A row of allowed tokens has the bans in it."""
    row = allowed.rows.get(place)
    banned = run.banned() if row is None else ()
    return Draw(run.request.sampling, run.computed, run.history, banned, row)
