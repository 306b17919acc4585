"""One sequence inside the engine: what may come in, how far its cache reaches, what its next draw asks, when it ends.

Pure.
"""

from dataclasses import dataclass, field

from shared.engine import EngineInfo, Sequence
from shared.engine.sampling.endings import banned, ends_of
from shared.engine.sampling.masks import Bound
from shared.engine.sampling.penalties import History, penalises
from shared.engine.torch_engine.blocks import Digest
from shared.errors import BadRequest, ContextTooLong
from shared.messages import Finish
from shared.text.matching import Matcher


@dataclass(slots=True, eq=False)
class Run:
    """A sequence while the engine holds it. Tokens [0, computed) have keys and values in `blocks`."""

    request: Sequence
    buffer: memoryview | None = None  # prefill: where the cache goes once it is complete
    grows: bool = False  # prefill: its whole blocks go to the buffer as they are computed
    matcher: Matcher | None = None  # where the text stands in the language that it must belong to
    tokens: list[int] = field(init=False)  # grows
    history: History | None = field(init=False)  # where a penalty is on
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0  # of the prompt, found in the prefix cache
    digests: list[Digest] = field(default_factory=list)  # of the prompt's full blocks
    published: int = 0  # of them, how many are in the prefix index
    exported: int = 0  # blocks that are in the buffer

    def __post_init__(self) -> None:
        request = self.request
        self.tokens = list(request.tokens)
        self.history = History(request.tokens, request.prompt_tokens) if penalises(request.sampling) else None

    @property
    def key(self) -> str:
        """Of the sequence."""
        return self.request.key

    @property
    def generated(self) -> int:
        """Tokens beyond the client's prompt, those of earlier attempts included."""
        return len(self.tokens) - self.request.prompt_tokens

    def append(self, token: int, eos_ids: frozenset[int]) -> None:
        """Take in a sampled token. Raises BadRequest when its language has become too costly to follow."""
        self.tokens.append(token)
        if self.history is not None:
            self.history.add(token)
        if self.matcher is not None and not self._stops(token, eos_ids):
            self.matcher.take(token)

    def banned(self, eos_ids: frozenset[int]) -> tuple[int, ...]:
        """Tokens that may not come next, because too few have come."""
        stopping = self.request.stopping
        return banned(ends_of(stopping, eos_ids), self.generated, stopping.min_tokens) if stopping.min_tokens else ()

    def bound(self, eos_ids: frozenset[int]) -> Bound | None:
        """How its language restricts the next token."""
        if self.matcher is None:
            return None
        return Bound(self.matcher, ends_of(self.request.stopping, eos_ids), self.banned(eos_ids))

    def ending(self, info: EngineInfo) -> tuple[Finish | None, int | None]:
        """Whether the last token ended the sequence, and the stop token it was."""
        stopping, token = self.request.stopping, self.tokens[-1]
        if self._stops(token, info.eos_ids):
            return Finish.STOP, token
        if self.matcher is not None and self.matcher.finished:
            return Finish.STOP, None
        if self.generated >= stopping.max_tokens or len(self.tokens) >= info.context:
            return Finish.LENGTH, None
        return None, None

    def _stops(self, token: int, eos_ids: frozenset[int]) -> bool:
        """Whether it is no part of the text."""
        stopping = self.request.stopping
        if (token in eos_ids and not stopping.ignore_eos) or token in stopping.stop_token_ids:
            return True
        return self.matcher is not None and self.matcher.over


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
