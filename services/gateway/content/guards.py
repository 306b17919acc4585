"""The guard of one choice: its stages, and the moment when it may be called ended.

Owns the ending of a moderated choice, which needs two things: the workers are through with it, or were told to stop,
and the last of its text has left the last stage.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from services.gateway.relay.calls import Answer, Call
from services.gateway.relay.record import Record, Sink
from shared.errors import BatonError
from shared.messages import Finish, Finished, Logprobs


class Ends(Protocol):
    """The part of the relay that guards need."""

    def end(self, record: Record, reason: Finish) -> None:
        """End a choice early, and well."""
        ...

    def close(self, call: Call, error: BatonError) -> None:
        """End a call badly."""
        ...


class Stage(Sink, Protocol):
    """A stage with tasks of its own."""

    def close(self) -> None:
        """Stop them."""
        ...


class ChoiceGuard:
    """One choice's. As a sink it is the last of the chain, in front of the answer's own."""

    def __init__(self, sink: Sink, relay: Ends) -> None:
        self.text: Callable[[int, str], None] = sink.text
        self._sink = sink
        self._relay = relay
        self._stages: list[Stage] = []
        self._call: Call | None = None
        self._record: Record | None = None
        self._reason: Finish | None = None  # the text is through
        self._settled: tuple[Finished, Callable[[Finished], None]] | None = None

    def own(self, stage: Stage) -> None:
        """Close a stage with the choice."""
        self._stages.append(stage)

    def watch(self, call: Call, record: Record) -> None:
        """Learn whose text it is. Before the first piece."""
        self._call, self._record = call, record
        record.guard = self

    # ---- the chain's last sink ---------------------------------------------------------------------------------------

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Pass on."""
        self._sink.token(index, text, logprobs)

    def finish(self, reason: Finish) -> None:
        """Pass on; the choice may end."""
        self._reason = reason
        self._sink.finish(reason)
        self._conclude()

    # ---- what stages say ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more from the workers; what was clean has been or will be passed on."""
        if self._record is not None:
            self._relay.end(self._record, Finish.CONTENT_FILTER)

    def fail(self, error: BatonError) -> None:
        """Give the whole call up, unless a later stage has ended the choice already."""
        if self._call is not None and self._reason is None:
            self._relay.close(self._call, error)

    # ---- what the relay says -----------------------------------------------------------------------------------------

    def settle(self, finished: Finished, end: Callable[[Finished], None]) -> None:
        """See Guard."""
        self._settled = (finished, end)
        self._conclude()

    def close(self) -> None:
        """See Guard."""
        for stage in self._stages:
            stage.close()

    def _conclude(self) -> None:
        if self._settled is not None and self._reason is not None:
            finished, end = self._settled
            self._settled = None
            end(msgspec.structs.replace(finished, reason=self._reason))


class Guarded:
    """An answer whose choices are guarded. `watch` must follow once the call has its records."""

    def __init__(self, answer: Answer, relay: Ends, chain: Callable[[ChoiceGuard], Sink]) -> None:
        self._answer = answer
        self._relay = relay
        self._chain = chain
        self._guards: list[ChoiceGuard] = []

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the first stage of the next choice."""
        guard = ChoiceGuard(self._answer.sink(choice, request_id), self._relay)
        self._guards.append(guard)
        return self._chain(guard)

    def watch(self, call: Call) -> None:
        """Tie each choice to its record."""
        for guard, record in zip(self._guards, call.records, strict=True):
            guard.watch(call, record)
