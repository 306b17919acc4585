"""The best of several completions: more are generated than the client gets.

Owns the comparison: the mean log probability of a completion's tokens, as OpenAI's API has it.
"""

from services.gateway.answers.shapes import Shape, Usage, Whole
from services.gateway.answers.whole import Collected
from shared.messages import Logprobs


class _Scored(Collected):
    """One choice and how probable its tokens were, those that a stop swallowed included."""

    __slots__ = ("_sum", "_tokens")

    def __init__(self) -> None:
        super().__init__()
        self._sum = 0.0
        self._tokens = 0

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Keep text, logprobs and score."""
        if logprobs is not None:
            self._sum += logprobs.token.logprob
            self._tokens += 1
        super().token(index, text, logprobs)

    @property
    def score(self) -> float:
        """The mean log probability; of a choice without tokens, nothing beats it."""
        return self._sum / self._tokens if self._tokens else 0.0


class BestAnswer:
    """A whole answer that keeps the best choices of each prompt, the best one first."""

    def __init__(self, shape: Shape, *, of: int, keep: int, show_logprobs: bool) -> None:
        self._shape = shape
        self._of = of
        self._keep = keep
        self.shows_logprobs = show_logprobs
        self._choices: list[_Scored] = []

    def sink(self, choice: int, request_id: str) -> _Scored:  # noqa: ARG002  streamed answers need them
        """Make the sink of the next choice."""
        made = _Scored()
        self._choices.append(made)
        return made

    def best(self) -> list[_Scored]:
        """Choose; every choice is complete."""
        chosen: list[_Scored] = []
        for first in range(0, len(self._choices), self._of):
            ranked = sorted(self._choices[first : first + self._of], key=lambda one: -one.score)
            chosen += ranked[: self._keep]
        return chosen

    def body(self, usage: Usage) -> bytes:
        """Make the JSON body. Usage counts what was generated, not what is shown."""
        return self._shape.whole([self._whole(one) for one in self.best()], usage)

    def _whole(self, one: _Scored) -> Whole:
        made = one.whole(self._shape)
        return made if self.shows_logprobs else Whole(made.text, made.reason)
