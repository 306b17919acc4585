"""A prompt computed and its first token sent, as prefills do it and decodes that take whole prompts.

Owns the order of these two steps and the early intervention around them. Who may come in, where the KV goes, and the
attempt's ending are the services' business.
"""

import time

from shared.engine import EngineInfo, Growth, Prefilled, Sequence
from shared.errors import Code, DeadlineExceeded
from shared.failpoints import failpoint
from shared.messages import Request
from shared.policy.admission import Refused
from shared.worker.frames import Draft
from shared.worker.progress import Progress
from shared.worker.running import Running, left_s
from shared.worker.standing import Standing
from shared.worker.tokens import finished, logprobs_of, sequence_of, show


class Prompting:
    """Computes the prompts of accepted attempts."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._metrics = standing.metrics

    async def compute(
        self, running: Running, buffer: memoryview, growth: Growth | None = None
    ) -> tuple[Sequence, Prefilled]:
        """Run the prompt. Raises DeadlineExceeded when its first token is overdue, before or after, and as engines do.

        The engine holds the sequence from here on, and may still write to the buffer: see `Engine.exported`.
        """
        failpoint("prefill.accepted")
        in_time(running.request)
        started = time.monotonic()
        sequence = sequence_of(running.request)
        prefilled = await self._engine.prefill(sequence, buffer, growth)
        self._metrics.prefilled(time.monotonic() - started)
        failpoint("prefill.computed")
        running.check()
        in_time(running.request)
        return sequence, prefilled

    async def first_token(self, running: Running, sequence: Sequence, prefilled: Prefilled) -> bool:
        """Send the token sampled with the prompt. True when the request ends with it, as its frame then says."""
        request, first, draft = running.request, prefilled.first, Draft()
        generated = sequence.tokens[request.prompt_tokens :]
        shown = show(self._standing.open_text(request, generated), first, request.stopping)
        if first.alternatives is not None and request.sampling.logprobs is not None:
            draft.logprobs.append(logprobs_of(self._standing.pieces, 0, first.token_id, first.alternatives))
        draft.token(request, request.generated, first.token_id, shown.text)
        ending = None
        if shown.reason is not None:
            ending = finished(request, shown, request.generated + 1, prefilled.cached_tokens)
            draft.ended.append(ending)
        running.progress = Progress(request, [first.token_id], [shown.text], draft.logprobs.copy(), ending)
        await self._standing.sender.send(request.gateway, draft)
        if shown.reason is None:
            failpoint("prefill.first_token")
            return False
        self._metrics.ended(shown.reason)
        return True


def in_time(request: Request) -> None:
    """Early intervention: what comes too late is not computed, and what was computed too late is not sent."""
    if left_s(request.deadline_ms) <= 0:
        late = DeadlineExceeded("the first token is overdue")
        late.retryable = False
        raise late


def unfit(request: Request, info: EngineInfo) -> Refused | None:
    """What is wrong with a prompt by itself: no worker of this model would compute it."""
    if len(request.tokens) % 4 or request.generated < 0:
        return Refused(Code.MALFORMED, "tokens are uint32, and the prompt is a part of them", retryable=False)
    if request.n_tokens >= info.context:
        message = f"{request.n_tokens} tokens; the model's context holds {info.context} with the answer"
        return Refused(Code.CONTEXT_TOO_LONG, message, retryable=False)
    if request.generated >= request.stopping.max_tokens:
        return Refused(Code.BAD_REQUEST, "all tokens that were asked for are generated", retryable=False)
    if left_s(min(request.deadline_ms, request.expires_ms)) <= 0:
        return Refused(Code.DEADLINE, "the first token is overdue", retryable=False)
    return None
