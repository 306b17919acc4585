"""One sequence inside the sim engine: its tokens, its blocks, its state, and when it ends. Knows no time."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from shared.engine import Alternatives, Sampled, Sequence
from shared.engine.sim_engine.chain import EMPTY, Vocabulary, absorb, row_number
from shared.messages import Finish
from shared.text.matching import Matcher


@dataclass(slots=True, eq=False)
class Held:
    """A sequence from prefill or insert until it is released or ends."""

    sequence: Sequence
    length: int  # tokens, the newest included
    blocks: list[int] = field(default_factory=list)
    state: int = EMPTY  # of the rows that are held
    newest: int = -1  # the last token, whose row the next step computes
    numbers: list[int] = field(default_factory=list)  # prefill: of the rows to export
    buffer: memoryview | None = None  # prefill: where they go
    written: int = 0  # of them, how many are there
    through: asyncio.Event = field(default_factory=asyncio.Event)  # prefill: the prompt's time is over, or it is gone
    matcher: Matcher | None = None  # where the text stands in the language that it must belong to
    working: asyncio.Future[Any] | None = None  # a thread is at the buffer
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # released; whoever works for it stops

    @property
    def wanted(self) -> bool:
        """Nobody has released it."""
        return not self.gone.is_set()

    def compute_newest(self) -> None:
        """Hold the newest token's row too."""
        self.state = absorb(self.state, row_number(self.state, self.newest))

    def sample(self, vocabulary: Vocabulary, eos_ids: frozenset[int], context: int) -> Sampled:
        """Draw the next token from the state, append it, and say whether it ends the sequence.

        Raises BadRequest when its language cannot be followed any further.
        """
        sequence = self.sequence
        stopping = sequence.stopping
        ends = frozenset(stopping.stop_token_ids) | (frozenset() if stopping.ignore_eos else eos_ids)
        barred = ends if self.length - sequence.prompt_tokens < stopping.min_tokens else frozenset()
        if self.matcher is None:
            token = vocabulary.draw(self.state, self.length, sequence.sampling, barred)
            ended = token in ends
        else:
            token = self._draw_allowed(self.matcher, vocabulary, ends, barred)
            ended = token in ends or self.matcher.over
            if not ended:
                self.matcher.take(token)
        self.newest = token
        self.length += 1
        alternatives = None
        if sequence.sampling.logprobs is not None:
            alternatives = _alternatives(vocabulary, token, sequence.sampling.logprobs)
        if ended:
            return Sampled(sequence.key, token, Finish.STOP, token, alternatives)
        if self.matcher is not None and self.matcher.finished:
            return Sampled(sequence.key, token, Finish.STOP, None, alternatives)
        if self.length - sequence.prompt_tokens >= stopping.max_tokens or self.length >= context:
            return Sampled(sequence.key, token, Finish.LENGTH, None, alternatives)
        return Sampled(sequence.key, token, None, None, alternatives)

    def _draw_allowed(
        self, matcher: Matcher, vocabulary: Vocabulary, ends: frozenset[int], barred: frozenset[int]
    ) -> int:
        row = memoryview(bytearray(matcher.row_bytes))
        matcher.write(row)
        matcher.allow(row, ends, barred)
        allowed = int.from_bytes(row, "little")
        return vocabulary.draw_allowed(self.state, self.length, self.sequence.sampling, allowed)


def _alternatives(vocabulary: Vocabulary, token: int, wanted: int) -> Alternatives:
    """A half for the token itself, a quarter for the next one, and so on: made up, but the same in every attempt."""
    top = [(other, -(rank + 1) * math.log(2)) for rank, other in enumerate(vocabulary.likeliest(token, wanted))]
    return Alternatives(-math.log(2), top[:wanted])
