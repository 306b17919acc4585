"""One sequence that vLLM computes, seen from the worker: what it waits for, how far it is, when it ends.

Pure but for the futures. vLLM draws the tokens, by our sampler; here is decided what each means for its text. A text
that must belong to a language is followed here too: the sampler, in another process, can only end one that leads
nowhere, and this side says why.
"""

import asyncio
from dataclasses import dataclass, field

from shared.engine import EngineInfo, Prefilled, Sequence
from shared.engine.vllm_engine.hub import Passage
from shared.errors import BadRequest, BatonError
from shared.messages import Finish
from shared.text.matching import Matcher


@dataclass(slots=True, eq=False)
class Held:
    """A sequence from `prefill` or `insert` until it has ended or is released."""

    sequence: Sequence
    prefills: bool
    first: asyncio.Future[Prefilled]
    ends: frozenset[int]  # tokens that end it, wherever they come
    forced: int | None = None  # what the sampler draws where a language leads nowhere, if no end of the text can
    length: int = field(init=False)  # tokens by now
    matcher: Matcher | None = None
    number: str = ""  # vLLM's name of the request, and the transfer's
    passage: Passage | None = None
    sent: asyncio.Task[None] | None = None  # the request, on its way to vLLM
    finished: bool = False  # vLLM has nothing more to compute for it
    exported: bool = False
    stays: int | None = None  # where its buffer is in the ranks' device arenas; None: in host memory
    released: bool = False

    def __post_init__(self) -> None:
        self.length = len(self.sequence.tokens)

    @property
    def key(self) -> str:
        """Of the sequence."""
        return self.sequence.key

    @property
    def generated(self) -> int:
        """Tokens beyond the client's prompt."""
        return self.length - self.sequence.prompt_tokens

    def take(self, token: int, info: EngineInfo) -> tuple[Finish | None, int | None]:
        """Append a token: whether it ends the sequence, and the stop token it is. Raises BadRequest.

        BadRequest: the language that the text must belong to leads nowhere, or is too costly to follow.
        """
        self.length += 1
        stops = token in self.ends
        if self.matcher is not None:
            stops = self._follow(self.matcher, token, stops=stops)
        if stops:
            return Finish.STOP, token
        if self.matcher is not None and self.matcher.finished:
            return Finish.STOP, None
        if self.generated >= self.sequence.stopping.max_tokens or self.length >= info.context:
            return Finish.LENGTH, None
        return None, None

    def fail(self, error: BatonError) -> None:
        """Whoever waits for the prompt is told."""
        if not self.first.done():
            self.first.set_exception(error)
            self.first.exception()  # marks it as seen: it need not have a waiter

    def _follow(self, matcher: Matcher, token: int, *, stops: bool) -> bool:
        """Whether the token is behind the text's end. Raises BadRequest when the text may not end here."""
        accepting = matcher.accepting
        if stops or token == self.forced:
            if not accepting:
                raise matcher.refusal()
            return True
        try:
            matcher.take(token)
        except BadRequest:
            if accepting:
                return True  # nothing could follow: what was drawn then is no part of the text
            raise
        return False
