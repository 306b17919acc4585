"""One choice of one client request: what is being delivered, and all that another attempt needs to go on.

Owns the delivered token ids and which attempt may speak. Knows no connection; a sink shows the text.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from shared.messages import Finish, Finished, Logprobs, Request, Sampling, Stopping
from shared.models.spec import ModelSpec

CLOSED: Final = -1
"""The attempt of a record that no worker may speak to now."""
ASK_S: Final = 1.0
"""Silence after which a worker is asked what became of a stream; twice as long each further time."""


class Sink(Protocol):
    """Where one choice's text goes: an SSE stream, a collected answer, a NATS inbox."""

    def text(self, index: int, text: str) -> None:
        """Show text; `index` is the last token it comes from."""
        ...

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Show a token with its logprobs; the text may be empty."""
        ...

    def finish(self, reason: Finish) -> None:
        """End the choice well."""
        ...


class Model(Protocol):
    """What must be known of a model to see that a text is over."""

    @property
    def spec(self) -> ModelSpec:
        """Its tokens that end a text."""
        ...

    @property
    def context(self) -> int:
        """Tokens that it holds."""
        ...


class Guard(Protocol):
    """Who decides when a choice has ended, where its text may still be held when the workers are through."""

    def settle(self, finished: Finished, end: Callable[[Finished], None]) -> None:
        """Hear that the workers are through; call `end` once the text is too, with the reason the client hears."""
        ...

    def close(self) -> None:
        """Hear that nobody waits for the choice any more. Idempotent."""
        ...


@dataclass(eq=False, slots=True)
class Record:
    """One choice: all that another attempt needs to go on where this one stopped."""

    request_id: str
    prompt: bytes  # uint32, little endian
    sampling: Sampling
    stopping: Stopping
    deadline_ms: int
    expires_ms: int
    sink: Sink
    text: Callable[[int, str], None]  # sink.text, looked up once
    stream: int = 0  # given by the relay
    attempt: int = CLOSED
    expected: int = 0  # index of the next token
    fresh: bool = True  # the attempt has not brought a token yet
    handed_off: bool = False  # a decode worker owns the attempt
    ids: list[int] = field(default_factory=list)
    early: dict[int, tuple[int, str, Logprobs | None]] = field(default_factory=dict)  # by index, ahead of `expected`
    ending: Finished | None = None  # came before its last tokens
    waited_s: float = 0.0  # for a missing token
    still_s: float = 0.0  # without any token
    seen: int = 0  # `expected` at the last sweep
    ask_s: float = ASK_S  # after so long a silence a worker is asked what became of it
    guard: Guard | None = None  # of a moderated answer
    memo: bytes = b""  # for the gateway that may have to go on with it
    tenant: str = ""
    prefix: tuple[int, ...] = ()  # marks of the prompt's beginnings
    before: int = -1  # the last attempt that may be another gateway's
    resumed: int = 0  # tokens that it had when it came from there
    joins: bool = True  # texts of one frame may be shown as one
    # for the traffic's sake; monotonic, 0: not yet
    group: str = ""  # of the worker that was asked last
    taken: bool = False  # some worker had it
    held_at: float = 0.0  # this attempt's worker accepted it
    first_at: float = 0.0  # this attempt's first token came
    begun_at: float = 0.0  # the first token of all came
    counted: int = -1  # tokens that it had at the last look

    @property
    def prompt_tokens(self) -> int:
        """Of the client's prompt."""
        return len(self.prompt) // 4

    @property
    def speaking(self) -> bool:
        """Whether some worker may bring tokens now."""
        return self.attempt != CLOSED

    def over(self, model: "Model") -> Finish | None:
        """Say why no token can follow those that came; None where one can."""
        if not self.ids:
            return None
        stopping, last, new = self.stopping, self.ids[-1], len(self.ids)
        ends = last in stopping.stop_token_ids or (last in model.spec.eos_ids and not stopping.ignore_eos)
        if ends and new > stopping.min_tokens:
            return Finish.STOP
        full = new >= stopping.max_tokens or self.prompt_tokens + new >= model.context
        return Finish.LENGTH if full else None

    def close(self) -> None:
        """Let nobody speak until another attempt begins."""
        self.attempt = CLOSED
        self.ending = None
        self.early.clear()

    def begin(self, attempt: int, gateway: str) -> Request:
        """Let this attempt speak and no older one: the prompt it starts from holds all that was delivered."""
        self.close()
        self.attempt = attempt
        self.fresh, self.handed_off = True, False
        self.still_s = self.waited_s = self.held_at = self.first_at = 0.0
        self.ask_s = ASK_S
        return Request(
            request_id=self.request_id,
            attempt=attempt,
            gateway=gateway,
            stream=self.stream,
            tokens=self.prompt + array("I", self.ids).tobytes(),
            prompt_tokens=self.prompt_tokens,
            sampling=self.sampling,
            stopping=self.stopping,
            deadline_ms=self.expires_ms if self.ids else self.deadline_ms,  # the first token has come: it is not due
            expires_ms=self.expires_ms,
            memo=self.memo,
            tenant=self.tenant,
        )
