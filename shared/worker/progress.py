"""How far one attempt has come here, kept so that another gateway can go on with its stream.

Owns the tokens and texts of the attempt; holds nothing of the engine.
"""

from array import array
from collections.abc import MutableSequence
from dataclasses import dataclass, field

from msgspec import structs

from shared.messages import Claimed, Finished, Logprobs, Request

ENTRY_BYTES = 40
"""About what one token costs in memory: its number, its text's place, a share of those texts that no other has."""
LOGPROB_BYTES = 200
"""About what a log probability costs, of the token and of each alternative."""


def _numbers() -> MutableSequence[int]:
    return array("I")  # four bytes each, and the garbage collector need not walk them


@dataclass(slots=True)
class Progress:
    """`request` as it came to this worker; `ids` and `texts` are what was added to it here, in step."""

    request: Request
    ids: MutableSequence[int] = field(default_factory=_numbers)
    texts: list[str] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)  # entries count from the first of `ids`
    ended: Finished | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        logprobs = sum(1 + len(one.top) for one in self.logprobs)
        shown = ENTRY_BYTES * len(self.ids) + LOGPROB_BYTES * logprobs
        return len(self.request.tokens) + len(self.request.memo) + shown

    def claimed(self, instance: str, most: int | None = None) -> Claimed:
        """Tell it, at most the first `most` of the tokens added here: whoever goes on computes the others again."""
        count = len(self.ids) if most is None else min(most, len(self.ids))
        tokens = self.request.tokens + array("I", self.ids[:count]).tobytes()
        return Claimed(
            instance,
            structs.replace(self.request, tokens=tokens),
            self.texts[:count],
            [one for one in self.logprobs if one.entry < count],
            self.ended if count == len(self.ids) else None,
        )
