"""Answers to direct NATS clients: MessagePack maps on the client's inbox.

Owns their shape: `{"i", "text"}` for pieces, then one map with `done`, or one with `error`. With several choices each
map carries `choice`. Publishes nothing itself.
"""

from collections.abc import Callable
from typing import Any

from services.gateway.answers.shapes import ChatShape, Usage
from services.gateway.answers.whole import Collected
from services.gateway.relay.record import Sink
from shared.errors import Overloaded
from shared.messages import Finish, Logprobs

Send = Callable[[dict[str, Any]], None]


class NatsChoice:
    """One streamed choice; a record's sink."""

    __slots__ = ("_around", "_choice", "_due", "_pending", "_send", "reason")

    def __init__(self, send: Send, choice: int) -> None:
        self.reason: Finish | None = None
        self._send = send
        self._choice = choice
        self._due = 0  # index of the first token whose text was not sent
        self._around = ChatShape("", 0, "").logprobs()
        self._pending: list[Logprobs] = []

    def text(self, index: int, text: str) -> None:
        """Send text; `i` is the first token it comes from."""
        self._piece(index, {"i": self._due, "text": text})

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Send a token with its logprobs, and those of the tokens whose text was held until now."""
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            for one in self._pending:
                self._around.add(one)
            self._pending.clear()
            self._piece(index, {"i": self._due, "text": text, "logprobs": (self._around.take() or {}).get("content")})

    def finish(self, reason: Finish) -> None:
        """Keep the reason for the last map."""
        self.reason = reason

    def _piece(self, index: int, piece: dict[str, Any]) -> None:
        self._due = index + 1
        if self._choice:
            piece["choice"] = self._choice
        self._send(piece)


class NatsAnswer:
    """The maps of one request."""

    def __init__(self, call_id: str, send: Send, *, streamed: bool) -> None:
        self.on_full: Callable[[], None] | None = None
        self._id = call_id
        self._send = send
        self._streamed = streamed
        self._choices: list[NatsChoice | Collected] = []

    def sink(self, choice: int, request_id: str) -> Sink:  # noqa: ARG002  streamed HTTP answers need the id
        """Make the sink of the next choice."""
        made = NatsChoice(self._piece, choice) if self._streamed else Collected()
        self._choices.append(made)
        return made

    def acknowledge(self) -> None:
        """Say at once that a gateway has the request. A client that wants one reply gets only the answer."""
        if self._streamed:
            self._send({"i": 0, "text": "", "id": self._id})

    def end(self, usage: Usage) -> None:
        """Send the last map; of a request that is not streamed it is the only one."""
        shape = ChatShape(self._id, 0, "")
        last: dict[str, Any] = {"done": True, "id": self._id, "usage": usage.as_dict()}
        ends = [str(choice.reason) for choice in self._choices]
        last["finish_reason"] = ends[0]
        if len(ends) > 1:
            last["finish_reasons"] = ends
        collected = [choice.whole(shape) for choice in self._choices if isinstance(choice, Collected)]
        if collected:
            last |= {"i": 0, "text": collected[0].text}
            if collected[0].logprobs is not None:
                last["logprobs"] = collected[0].logprobs["content"]
            if len(collected) > 1:
                last["texts"] = [one.text for one in collected]
        self._send(last)

    def _piece(self, piece: dict[str, Any]) -> None:
        try:
            self._send(piece)
        except Overloaded:
            if self.on_full is not None:
                self.on_full()
