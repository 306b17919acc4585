"""The NATS clients whose requests are open: which of them asked us to stop, and which are gone.

Owns the register of them by request id and by inbox, and the probes: now and then a piece of a stream asks for an
answer, and NATS itself answers it when nobody is subscribed to the client's inbox any more. Sends nothing by itself.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

from shared.bus import NO_RESPONDERS, Delivery
from shared.errors import BatonError, Cancelled

PROBE_S: Final = 1.0
"""Between two probes of one client; a client that is gone is noticed within about twice that."""

Send = Callable[[str, dict[str, Any], str], None]
"""Subject, reply map, and the subject on which NATS says that nobody listens; empty: it need not say so."""


class Client:
    """One open request. What it sends goes through `send`, so that a probe can ride on it."""

    __slots__ = (
        "_due",
        "_end",
        "_index",
        "_probes",
        "_send",
        "_since_s",
        "id",
        "inbox",
        "stopped",
        "streamed",
        "token",
    )

    def __init__(self, inbox: str, request_id: str, send: Send, probes: str, *, streamed: bool) -> None:
        self.inbox = inbox
        self.id = request_id
        self.token = secrets.token_hex(12)
        self.streamed = streamed
        self.stopped: BatonError | None = None
        self._send = send
        self._probes = probes
        self._due = streamed  # the next piece is a probe
        self._index = 0  # of the last piece
        self._since_s = 0.0  # the last probe
        self._end: Callable[[BatonError], None] | None = None

    def send(self, reply: dict[str, Any]) -> None:
        """Send a map to the client. Raises Overloaded when too many wait to be sent."""
        if not self._due:
            self._send(self.inbox, reply, "")
            return
        self._due, self._since_s = False, 0.0
        self._index = reply.get("i", self._index)
        self._send(self.inbox, reply, f"{self._probes}.{self.token}")

    def sweep(self, elapsed_s: float) -> None:
        """Probe with the next piece; with an empty one where none came since the last sweep."""
        if not self.streamed or self._end is None:
            return
        self._since_s += elapsed_s
        if self._due:
            self.send({"i": self._index, "text": ""})
        elif self._since_s >= PROBE_S:
            self._due = True

    def begin(self, end: Callable[[BatonError], None]) -> None:
        """Note how the request is ended, now that it has begun; one that was stopped before ends at once."""
        self._end = end
        if self.stopped is not None:
            end(self.stopped)

    def stop(self, error: BatonError) -> bool:
        """End the request; whether this did it, or something before."""
        if self.stopped is not None:
            return False
        self.stopped = error
        if self._end is not None:
            self._end(error)
        return True


class Clients:
    """All of one gateway's. `probes` is a subject of its own, under which the answers to probes come."""

    def __init__(self, send: Send, probes: str) -> None:
        self._send = send
        self._probes = probes
        self._by_token: dict[str, Client] = {}
        self._by_name: dict[str, dict[str, Client]] = {}  # by request id or inbox, then by token

    def __len__(self) -> int:
        return len(self._by_token)

    def open(self, inbox: str, request_id: str, *, streamed: bool) -> Client:
        """Enter a client; `close` must follow."""
        client = Client(inbox, request_id, self._send, self._probes, streamed=streamed)
        self._by_token[client.token] = client
        for name in (client.id, client.inbox):
            self._by_name.setdefault(name, {})[client.token] = client
        return client

    def close(self, client: Client) -> None:
        """Forget a client."""
        del self._by_token[client.token]
        for name in (client.id, client.inbox):
            if named := self._by_name.get(name):
                named.pop(client.token, None)
                if not named:
                    del self._by_name[name]

    def cancel(self, name: str) -> tuple[list[str], int]:
        """Stop the request of this id, or all that answer to this inbox; their ids, and how many were not stopped yet.

        Asked once more before they are closed, the answer is the same: the first may have been lost.
        """
        clients = list(self._by_name.get(name, {}).values())
        error = Cancelled("the client cancelled the request")
        return [client.id for client in clients], sum(client.stop(error) for client in clients)

    def on_probe(self, delivery: Delivery) -> bool:
        """Take NATS' word that nobody listens on a client's inbox; whether a request ended by it."""
        client = self._by_token.get(delivery.subject.rpartition(".")[2])
        if client is None or delivery.data or delivery.headers.get("Status") != NO_RESPONDERS:
            return False
        return client.stop(Cancelled("nobody listens on the client's inbox any more"))

    def sweep(self, elapsed_s: float) -> None:
        """Probe those whose time has come. Called twice a second."""
        for client in list(self._by_token.values()):
            client.sweep(elapsed_s)
