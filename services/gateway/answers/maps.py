"""Answers to direct NATS clients: MessagePack maps on the client's inbox.

Owns their shape: `{"i", "text"}` for pieces, then one map with `done`, or one with `error`. With several choices each
map carries `choice`. Publishes nothing itself.
"""

from collections.abc import Callable
from typing import Any

from services.gateway.answers.best import BestAnswer
from services.gateway.answers.counted import Count
from services.gateway.answers.positions import Mark, Position, units
from services.gateway.answers.shapes import ChatShape, Usage, Whole
from services.gateway.answers.whole import Collected
from services.gateway.relay.record import Sink
from services.gateway.tools.said import CallPiece
from shared.errors import Overloaded
from shared.messages import Finish, Logprobs

Send = Callable[[dict[str, Any]], None]


class NatsChoice:
    """One streamed choice; a record's sink."""

    __slots__ = ("_around", "_choice", "_due", "_entries", "_mark", "_pending", "_send", "_units", "reason")

    def __init__(self, send: Send, choice: int, *, exact: bool) -> None:
        self.reason: Finish | None = None
        self._send = send
        self._choice = choice
        self._mark = Mark(exact=exact)
        self._units = self._entries = 0  # that the next map shows
        self._due = 0  # index of the first token whose text was not sent
        self._around = ChatShape("", 0, "").logprobs()
        self._pending: list[Logprobs] = []

    def resume_at(self, seen: Position) -> None:
        """Go on behind what a client has seen."""
        self._due = seen.index + 1
        self._mark.resume(seen)

    def pass_over(self, logprobs: Logprobs) -> None:
        """Nothing here depends on what a client has seen."""

    def text(self, index: int, text: str) -> None:
        """Send text; `i` is the first token it comes from."""
        self._units = len(text)
        self._piece(index, {"i": min(self._due, index), "text": text})

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Send a token with its logprobs, and those of the tokens whose text was held until now."""
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            self._units = len(text)
            self._piece(index, {"i": min(self._due, index), "text": text, "logprobs": self._waiting_logprobs()})

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Send pieces of calls, with the words before them and the logprobs that wait."""
        piece = {"i": min(self._due, index), "text": text, "tool_calls": [one.delta() for one in calls]}
        if self._pending:
            piece["logprobs"] = self._waiting_logprobs()
        self._units = units(text, calls)
        self._piece(index, piece)

    def _waiting_logprobs(self) -> list[dict[str, Any]] | None:
        for one in self._pending:
            self._around.add(one)
        self._entries += len(self._pending)
        self._pending.clear()
        return (self._around.take() or {}).get("content")

    def finish(self, reason: Finish) -> None:
        """Keep the reason for the last map. Logprobs of tokens that a stop swallowed are swallowed too."""
        self.reason = reason
        if self._pending and reason is not Finish.STOP:
            index = self._due + len(self._pending) - 1
            self._piece(index, {"i": self._due, "text": "", "logprobs": self._waiting_logprobs()})

    def _piece(self, index: int, piece: dict[str, Any]) -> None:
        self._due = index + 1
        piece["at"] = self._mark.show(index, self._units, self._entries).decode()
        self._units = self._entries = 0
        if self._choice:
            piece["choice"] = self._choice
        self._send(piece)


class CountedNatsChoice(NatsChoice):
    """One streamed choice whose every map carries the usage so far."""

    __slots__ = ("_count",)

    def __init__(self, send: Send, choice: int, *, exact: bool, count: Count) -> None:
        super().__init__(send, choice, exact=exact)
        self._count = count

    def _piece(self, index: int, piece: dict[str, Any]) -> None:
        self._count.completion += index + 1 - self._due
        super()._piece(index, piece | {"usage": self._count.as_dict()})


class NatsAnswer:
    """The maps of one request."""

    def __init__(
        self,
        call_id: str,
        send: Send,
        *,
        streamed: bool,
        echoes: list[str] | None = None,
        best: BestAnswer | None = None,
        count: Count | None = None,
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self.on_full: Callable[[], None] | None = None
        self._id = call_id
        self._send = send
        self._streamed = streamed
        self._echoes = echoes or []
        self._best = best
        self._count = count
        self._choices: list[NatsChoice | Collected] = []

    def expect(self, prompt_tokens: int) -> None:
        """Note what the prompts cost."""
        if self._count is not None:
            self._count.prompt = prompt_tokens

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        if self._best is not None:
            return self._best.sink(choice, request_id)
        made = self._streamed_choice(choice) if self._streamed else Collected()
        self._choices.append(made)
        return made

    def _streamed_choice(self, choice: int) -> NatsChoice:
        if self._count is None:
            return NatsChoice(self._piece, choice, exact=self._exact)
        return CountedNatsChoice(self._piece, choice, exact=self._exact, count=self._count)

    def acknowledge(self, *, opened: bool = False) -> None:
        """Say at once that a gateway has the request. A client that wants one reply gets only the answer.

        `opened`: the client has seen the beginning, when the stream was another gateway's.
        """
        if not self._streamed:
            return
        self._send({"i": 0, "text": "", "id": self._id})
        if opened:
            return
        for choice, text in enumerate(self._echoes):
            self._send({"i": 0, "text": text} | ({"choice": choice} if choice else {}))

    def end(self, usage: Usage) -> None:
        """Send the last map; of a request that is not streamed it is the only one."""
        shape = ChatShape(self._id, 0, "")
        last: dict[str, Any] = {"done": True, "id": self._id, "usage": usage.as_dict()}
        choices = self._choices if self._best is None else self._best.best()
        ends = [str(choice.reason) for choice in choices]
        last["finish_reason"] = ends[0]
        if len(ends) > 1:
            last["finish_reasons"] = ends
        collected = [choice.whole(shape) for choice in choices if isinstance(choice, Collected)]
        if collected:
            last |= self._whole(collected)
        self._send(last)

    def _whole(self, collected: list[Whole]) -> dict[str, Any]:
        """Say all that was collected: of the first choice, and of each where there are more."""
        before = self._echoes or [""] * len(collected)
        texts = [echo + one.text for echo, one in zip(before, collected, strict=True)]
        made: dict[str, Any] = {"i": 0, "text": texts[0]}
        several: dict[str, Any] = {"texts": texts}
        if self._best is None or self._best.shows_logprobs:
            logprobs = [one.logprobs and one.logprobs["content"] for one in collected]
            if any(logprobs):
                made["logprobs"], several["logprobs_of"] = logprobs[0], logprobs
        if any(one.calls for one in collected):
            calls = [[call.whole() for call in one.calls] for one in collected]
            made["tool_calls"], several["tool_calls_of"] = calls[0], calls
        return made | several if len(collected) > 1 else made

    def _piece(self, piece: dict[str, Any]) -> None:
        try:
            self._send(piece)
        except Overloaded:
            if self.on_full is not None:
                self.on_full()
