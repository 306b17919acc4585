"""Which tokens a sequence has had, and how often: what the penalties look at. Pure."""

from array import array
from collections.abc import Sequence

from shared.messages import Sampling


class History:
    """Distinct tokens of prompt and generation as two columns, kept up as tokens come; each draw copies them."""

    __slots__ = ("_place", "counts", "ids")

    def __init__(self, tokens: Sequence[int], prompt_tokens: int) -> None:
        self.ids = array("q", dict.fromkeys(tokens[:prompt_tokens]))
        self.counts = array("q", bytes(8 * len(self.ids)))  # of generated occurrences; 0 is prompt only
        self._place = {token: place for place, token in enumerate(self.ids)}
        for token in tokens[prompt_tokens:]:
            self.add(token)

    def add(self, token: int) -> None:
        """One more generated token."""
        place = self._place.get(token)
        if place is None:
            self._place[token] = len(self.ids)
            self.ids.append(token)
            self.counts.append(1)
        else:
            self.counts[place] += 1


def penalises(sampling: Sampling) -> bool:
    """Whether any penalty is on."""
    return sampling.repetition_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
