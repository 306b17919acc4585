"""One request's row in vLLM's batch, as the sampler sees it: its tokens so far, and what its next draw asks.

Everything follows from vLLM's own lists of tokens. A row's draw may be thrown away (a prompt is computed in chunks),
and tokens may be taken back, so nothing is remembered of what was drawn. Imports neither torch nor vLLM.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from shared.engine.sampling.endings import banned
from shared.engine.sampling.masks import Bound
from shared.engine.sampling.penalties import History, penalises
from shared.engine.vllm_engine.draws import Wanted
from shared.errors import EngineFailed
from shared.messages import Constraint
from shared.text.matching import Matcher

COMPILED_S: Final = 30.0
"""The longest wait for a constraint; its limits make it a second."""
Compile = Callable[[Constraint, list[int]], Future[Matcher]]
"""Begins to make the matcher of a text that has these generated tokens."""


class Row:
    """From the step in which vLLM adds a request to its batch until it leaves it."""

    def __init__(self, wanted: Wanted, prompt: list[int], output: list[int], compiles: Compile) -> None:
        """`output` is vLLM's own list, which grows; an id that is not known yet is -1 there."""
        self.wanted = wanted
        self.stops = False  # its end has come; vLLM may run it once more all the same
        self.broken = False  # nothing can be drawn for it any more
        self._ends = frozenset(wanted.ends)
        self._prompt = prompt
        self._output = output
        self._compiles = compiles
        self._seen: int
        self._history: History | None
        self._making: Future[Matcher] | None
        self._matcher: Matcher | None
        self._begin()

    def _begin(self) -> None:
        known = [token for token in self._output if token >= 0]
        tokens = [*self._prompt, *known]
        sampling, prompt_tokens = self.wanted.sampling, self.wanted.prompt_tokens
        self.stops = not self._ends.isdisjoint(known)
        self._seen = len(known)
        self._history = History(tokens, prompt_tokens) if penalises(sampling) else None
        self._matcher = self._making = None
        if sampling.constraint is not None and not self.stops:
            self._making = self._compiles(sampling.constraint, tokens[prompt_tokens:])

    @property
    def position(self) -> int:
        """Of the token to draw, counted from the first prompt token."""
        return len(self._prompt) + self._seen

    @property
    def history(self) -> History | None:
        """Where a penalty is on."""
        return self._history

    def follow(self) -> None:
        """Take in the tokens that have come. Raises BadRequest where the text cannot be followed, or EngineFailed."""
        if len(self._output) < self._seen:
            self._begin()
        if self._making is not None:
            self._matcher, self._making = self._making.result(COMPILED_S), None
        while self._seen < len(self._output) and not self.stops:
            token = self._output[self._seen]
            if token < 0:
                raise EngineFailed("vLLM has not said which token it has drawn")
            self._seen += 1
            if self._history is not None:
                self._history.add(token)
            if token in self._ends:
                self.stops = True
            elif self._matcher is not None:
                self._matcher.take(token)

    @property
    def bans(self) -> tuple[int, ...]:
        """Tokens that may not come next."""
        wanted = self.wanted
        return banned(wanted.ends, self.position - wanted.prompt_tokens, wanted.min_tokens)

    @property
    def bound(self) -> Bound | None:
        """How its language restricts the next token. What would make vLLM stop, but ends no text, is no part of one."""
        if self._matcher is None:
            return None
        stop = self.wanted.stop
        reserved = () if stop is None or stop in self._ends else (stop,)
        return Bound(self._matcher, self._ends, (*self.bans, *reserved))

    @property
    def over(self) -> bool:
        """Nothing can follow, and no token of the client's ends it; known once its row of bits is made."""
        return self._matcher is not None and self._matcher.over
