"""Whom a request comes from, where proxies stand before the gateway.

Owns the trust in them and the reading of what they say: `X-Forwarded-For`, and where there is none `Forwarded` (RFC
7239). What a proxy wrote stands to the right of what it was sent, so both are read from the right, and no further than
the first address that is no trusted proxy's: anybody may have written what lies beyond. Raises nothing.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final, Protocol

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_HOPS: Final = 32
"""Addresses read of one request; behind more proxies nobody stands."""
_NODE: Final = re.compile(
    r"\[(?P<bracketed>[0-9A-Fa-f:.]{2,45})\](?::\w{1,16})?|(?P<v4>[0-9.]{7,15})(?::\w{1,16})?|(?P<v6>[0-9A-Fa-f:.]{2,45})",
    re.ASCII,
)
"""An address as proxies write it, most with no port; no zone, which means something to its own host alone."""
_PAIR: Final = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r"(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s\",;]*))[ \t]*(?P<end>[,;]|$)"
)
_ESCAPED: Final = re.compile(r"\\(.)")


class Headers(Protocol):
    """What was sent, as aiohttp keeps it."""

    def getall(self, key: str, default: list[str]) -> list[str]:
        """List the lines of one header, in the order of their coming."""
        ...


class Proxies:
    """The proxies that are trusted: single addresses and networks, checked when the configuration was read."""

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._prefixes: dict[tuple[int, int], set[int]] = {}  # by version and bits that are no part of the prefix
        for text in networks:
            network = ipaddress.ip_network(text)
            rest = network.max_prefixlen - network.prefixlen
            self._prefixes.setdefault((network.version, rest), set()).add(int(network.network_address) >> rest)

    def trusts(self, peer: str) -> bool:
        """Say whether a connection from this address is a trusted proxy's."""
        if not self._prefixes:
            return False
        address = _parsed(peer.partition("%")[0])
        return address is not None and self._has(address)

    def client(self, peer: str, headers: Headers) -> str:
        """Say whom a request comes from: the peer itself, unless that is a trusted proxy and says who it is for.

        Where everybody it names is a trusted proxy too, the first of them has asked.
        """
        if not self.trusts(peer):
            return peer
        lines = headers.getall("x-forwarded-for", [])
        nodes = _listed(lines) if lines else _forwarded(headers.getall("forwarded", []))
        found = peer
        for number, node in enumerate(nodes):
            address = None if node is None or number >= MOST_HOPS else _address(node)
            if address is None:
                return peer
            found = str(address)
            if not self._has(address):
                break
        return found

    def _has(self, address: Address) -> bool:
        number, version = int(address), address.version
        return any(version == of and number >> rest in prefixes for (of, rest), prefixes in self._prefixes.items())


def _listed(lines: list[str]) -> Iterator[str]:
    """Walk through the elements of X-Forwarded-For, the last first."""
    for line in reversed(lines):
        for part in reversed(line.split(",")):
            if node := part.strip(" \t"):
                yield node


def _forwarded(lines: list[str]) -> Iterator[str | None]:
    """Walk through whom the elements of Forwarded are for, the last first; None where that is not said."""
    for line in reversed(lines):
        yield from reversed(_elements(line) or [None])


def _elements(line: str) -> list[str | None] | None:
    """Read one line of Forwarded, quoted commas and all; None when it is malformed."""
    found: list[str | None] = [None]
    at = 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None:
            return None
        if pair["name"].lower() == "for":
            if found[-1] is not None:
                return None
            quoted = pair["quoted"]
            found[-1] = pair["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        if pair["end"] == ",":
            found.append(None)
        at = pair.end()
    return found


def _address(node: str) -> Address | None:
    """Read an address, with or without a port. None: it is none, as `unknown` and `_hidden` are not."""
    written = _NODE.fullmatch(node)
    return None if written is None else _parsed(written["bracketed"] or written["v4"] or written["v6"])


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
