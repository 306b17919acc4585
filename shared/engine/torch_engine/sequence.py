"""One sequence inside the engine: what may come in, how far its cache reaches, what its next draw asks, when it ends.

Pure.
"""

from dataclasses import dataclass, field
from typing import Final

from shared.engine import EngineInfo, Sequence
from shared.engine.sampling.endings import banned
from shared.engine.sampling.masks import Bound
from shared.engine.sampling.penalties import History, penalises
from shared.engine.sampling.randomness import GREEDY_BELOW
from shared.engine.torch_engine.blocks import Digest
from shared.errors import BadRequest, ContextTooLong
from shared.messages import Finish
from shared.text.matching import Matcher

UNLIMITED: Final = 1 << 62


@dataclass(slots=True, eq=False)
class Run:
    """A sequence while the engine holds it. Tokens [0, computed) have keys and values in `blocks`, or will have.

    Where steps overlap, `computed` may be ahead of the tokens by the one that is drawn but not read yet.
    """

    request: Sequence
    buffer: memoryview | None = None  # prefill: where the cache goes once it is complete
    grows: bool = False  # prefill: its whole blocks go to the buffer as they are computed
    matcher: Matcher | None = None  # where the text stands in the language that it must belong to
    ends: frozenset[int] = frozenset()  # tokens that end it
    limit: int = UNLIMITED  # so many tokens of it are computed: from the last of them its last one is drawn
    key: str = field(init=False)
    tokens: list[int] = field(init=False)  # grows
    history: History | None = field(init=False)  # where a penalty is on
    plain: bool = field(init=False)  # its next token is the likeliest one, and nobody asks for more
    follows: bool = field(init=False)  # its next draw depends on which token the last one was
    blocks: list[int] = field(default_factory=list)  # none: it is not held any more
    computed: int = 0
    cached: int = 0  # of the prompt, found in the prefix cache
    digests: list[Digest] = field(default_factory=list)  # of the prompt's full blocks
    published: int = 0  # of them, how many are in the prefix index
    exported: int = 0  # blocks that are in the buffer

    def __post_init__(self) -> None:
        request, sampling = self.request, self.request.sampling
        self.key = request.key
        self.tokens = list(request.tokens)
        self.history = History(request.tokens, request.prompt_tokens) if penalises(sampling) else None
        self.follows = self.history is not None or self.matcher is not None
        asks = self.follows or sampling.logit_bias or sampling.logprobs is not None or request.stopping.min_tokens
        self.plain = not asks and sampling.temperature < GREEDY_BELOW

    @property
    def input(self) -> int:
        """What a decoding sequence computes next; 0 while that token is on its way."""
        return self.tokens[self.computed] if self.computed < len(self.tokens) else 0

    def append(self, token: int) -> None:
        """Take in a sampled token. Raises BadRequest when its language has become too costly to follow."""
        self.tokens.append(token)
        if self.history is not None:
            self.history.add(token)
        if self.matcher is not None and not self._stops(token):
            self.matcher.take(token)

    def banned(self) -> tuple[int, ...]:
        """Tokens that may not be drawn after what is computed, because too few have come."""
        least = self.request.stopping.min_tokens
        return banned(self.ends, self.computed - self.request.prompt_tokens, least) if least else ()

    def bound(self) -> Bound | None:
        """How its language restricts the next token."""
        return None if self.matcher is None else Bound(self.matcher, self.ends, self.banned())

    def ending(self) -> tuple[Finish | None, int | None]:
        """Whether the last token ended the sequence, and the stop token it was."""
        token = self.tokens[-1]
        if self._stops(token):
            return Finish.STOP, token
        if self.matcher is not None and self.matcher.finished:
            return Finish.STOP, None
        if len(self.tokens) > self.limit:
            return Finish.LENGTH, None
        return None, None

    def _stops(self, token: int) -> bool:
        """Whether it is no part of the text."""
        return token in self.ends or (self.matcher is not None and self.matcher.over)


def limit_of(sequence: Sequence, context: int) -> int:
    """How many of its tokens are computed before its last one is drawn: by what was asked for, or by the context."""
    return min(sequence.prompt_tokens + sequence.stopping.max_tokens, context) - 1


def check(sequence: Sequence, info: EngineInfo, vocabulary: int) -> None:
    """Raise BadRequest for what would break a step, or could never be answered."""
    tokens = sequence.tokens
    if not tokens or not 1 <= sequence.prompt_tokens <= len(tokens):
        raise BadRequest(f"{len(tokens)} tokens of which {sequence.prompt_tokens} are the prompt make no sequence")
    if len(tokens) >= info.context:
        raise ContextTooLong(f"{len(tokens)} tokens leave no room in a context of {info.context}")
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise BadRequest(f"token ids must lie below the vocabulary's size, {vocabulary}")
    special = (*sequence.sampling.logit_bias, *sequence.stopping.stop_token_ids)
    if special and not 0 <= min(special) <= max(special) < vocabulary:
        raise BadRequest(f"logit_bias and stop_token_ids must lie below the vocabulary's size, {vocabulary}")
