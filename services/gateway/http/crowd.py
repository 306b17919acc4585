"""All HTTP connections of one gateway: how many there are, whose they are, and which have overstayed.

Owns the bounds on connections and the deadlines of those that send or take nothing. Parses nothing, knows no request.
"""

import ipaddress
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from services.gateway.http.terms import Terms

FULL: Final = "this gateway has as many connections open as it takes"
PEER_FULL: Final = "your address has as many connections open as one may have"


class Overstaying(Protocol):
    """A connection, as far as its deadlines go."""

    def head_is_late(self) -> None:
        """Close: no whole request head came in time."""
        ...

    def unread(self) -> int:
        """Count the bytes that the client has not taken."""
        ...

    def give_up(self) -> None:
        """Close at once: the client takes nothing."""
        ...


@dataclass(slots=True)
class CrowdCounts:
    """Since start."""

    connections: int = 0  # accepted
    refused_full: int = 0
    refused_peer: int = 0
    malformed: int = 0  # requests that were not HTTP, or ceased to be
    heads_late: int = 0
    heads_too_large: int = 0
    pipelines_cut: int = 0
    readers_cut: int = 0  # took nothing of an answer for too long
    handshakes_failed: int = 0
    accepts_failed: int = 0  # for want of files or memory


class Visit:
    """One accepted connection's place in the crowd."""

    __slots__ = ("_bounded", "_crowd", "_left", "peer")

    def __init__(self, crowd: "Crowd", peer: str, *, bounded: bool) -> None:
        self.peer = peer
        self._bounded = bounded  # as it was admitted, whatever a reload says since
        self._crowd = crowd
        self._left = False

    def leave(self) -> None:
        """Give the place back. Idempotent."""
        if not self._left:
            self._left = True
            self._crowd.left(self.peer if self._bounded else None)


class Crowd:
    """One per gateway."""

    def __init__(self, terms: Terms) -> None:
        self.counts = CrowdCounts()
        self.size = 0
        self._terms = terms
        self._by_peer: Counter[str] = Counter()
        self._heads: dict[Overstaying, float] = {}  # since when a head is awaited; the oldest come first
        self._unread: dict[Overstaying, tuple[int, float]] = {}  # bytes that the client has not taken, since when

    def admit(self, address: str) -> Visit | str:
        """Take a place for a new connection, or say why there is none.

        Behind a trusted proxy stand many: only the bound on all connections holds for it, and it takes nothing of what
        its neighbours may have.
        """
        settings = self._terms.settings
        peer, bounded = peer_of(address), not self._terms.proxies.trusts(address)
        if self.size >= settings.max_connections:
            self.counts.refused_full += 1
            return FULL
        if bounded and self._by_peer[peer] >= settings.max_connections_per_peer:
            self.counts.refused_peer += 1
            return PEER_FULL
        self.counts.connections += 1
        self.size += 1
        if bounded:
            self._by_peer[peer] += 1
        return Visit(self, peer, bounded=bounded)

    def left(self, peer: str | None) -> None:
        """See Visit. None: it was not counted for any peer."""
        self.size -= 1
        if peer is None:
            return
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]

    def awaits_head(self, connection: Overstaying) -> None:
        """Start a head's deadline, unless it runs already."""
        self._heads.setdefault(connection, time.monotonic())

    def has_head(self, connection: Overstaying) -> None:
        """End that deadline."""
        self._heads.pop(connection, None)

    def blocked(self, connection: Overstaying) -> None:
        """Watch a client that does not take what it is sent."""
        self._unread.setdefault(connection, (connection.unread(), time.monotonic()))

    def unblocked(self, connection: Overstaying) -> None:
        """Watch it no more."""
        self._unread.pop(connection, None)

    def gone(self, connection: Overstaying) -> None:
        """Forget a connection."""
        self._heads.pop(connection, None)
        self._unread.pop(connection, None)

    def sweep(self) -> None:
        """Close those that have overstayed. Costs nothing for the others."""
        now = time.monotonic()
        due = now - self._terms.settings.head_timeout_s
        late = []
        for connection, since in self._heads.items():
            if since > due:
                break
            late.append(connection)
        for connection in late:
            del self._heads[connection]
            self.counts.heads_late += 1
            connection.head_is_late()
        for connection, (before, last) in list(self._unread.items()):
            unread = connection.unread()
            since = now if unread < before else last
            self._unread[connection] = (unread, since)
            if now - since >= self._terms.settings.send_timeout_s:
                self._cut(connection)
        self._bound_total()

    def _bound_total(self) -> None:
        """Cut those that leave the most unread until what all leave is within the bound."""
        total = sum(unread for unread, _ in self._unread.values())
        if total <= self._terms.settings.max_unsent_total:
            return
        for connection, (unread, _) in sorted(self._unread.items(), key=lambda one: -one[1][0]):
            if total <= self._terms.settings.max_unsent_total:
                break
            total -= unread
            self._cut(connection)

    def _cut(self, connection: Overstaying) -> None:
        del self._unread[connection]
        self.counts.readers_cut += 1
        connection.give_up()


def peer_of(address: str) -> str:
    """Name whom an address belongs to: one IPv4 address, or the /64 that one IPv6 client has for itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
