"""KV buffers over TCP: straight from the sender's staging into the receiver's, the checksum computed as bytes flow.

Owns addresses and the carrying of a payload; must not know tickets. Whoever can reach the port can open a connection;
only a ticket makes the receiver take a payload. On anything but loopback the ticket, 16 random bytes that came over
NATS, is the authorisation, and the bytes are not encrypted: keep the port inside the cluster's network.
"""

import asyncio
import ipaddress
import socket
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from shared.errors import ConfigError
from shared.failpoints import failpoint
from shared.kv.growth import Growing
from shared.kv.layout import CHUNK_BYTES, Checksum, chunk_ranges
from shared.kv.link import Link

TRANSPORT: Final = "tcp"
_BACKLOG: Final = 128


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError when the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError([f"kv.host {host!r} is no address to listen on: {error}"]) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError([f"cannot listen for KV buffers on {host}:{port}: {error}"]) from error
    return sock


def address_of(listener: socket.socket, advertised: str = "") -> str:
    """Where senders reach the listener: `advertised`, else what it is bound to, else (bound to all) our own address.

    `advertised` is a host, or host and port where what they connect to passes connections on to us.
    """
    bound, port = listener.getsockname()[:2]
    told = urlsplit(f"//{advertised}")
    host = told.hostname or (_own_address(listener.family) if ipaddress.ip_address(bound).is_unspecified else bound)
    port = told.port or port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(address: str) -> Link:
    """A connection to a receiver. Raises OSError, also for what is no address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise OSError(f"{address!r} is no host:port")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, resolved = found[0]
    link = Link(sock := socket.socket(family, kind, protocol))
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await link.connect(resolved)
    except BaseException:
        link.close()
        raise
    return link


def accepted(sock: socket.socket) -> Link:
    """The receiver's end of a new connection."""
    with suppress(OSError):  # it may have gone again already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Link(sock)


def send(link: Link, view: memoryview) -> bytes:
    """In a thread: send the payload; its checksum. A chunk is hashed once it was sent: then the cache has it."""
    digest = Checksum()
    for start, stop in chunk_ranges(len(view)):
        link.still_wanted()
        _put(link, digest, view, start, stop)
    return digest.digest()


def send_growing(link: Link, growing: Growing) -> bytes:
    """In a thread: send the payload as it becomes final, then its tail; the checksum of both.

    Raises GrowthStopped when it does not become so: the receiver then finds the connection broken off.
    """
    digest = Checksum()
    start, end = 0, len(growing.view)
    while start < end:
        stop = min(growing.wait(start, link.still_wanted), start + CHUNK_BYTES)
        _put(link, digest, growing.view, start, stop)
        start = stop
    tail = growing.wait_tail(link.still_wanted)
    digest.update(tail)
    link.put(tail)
    return digest.digest()


def _put(link: Link, digest: Checksum, view: memoryview, start: int, stop: int) -> None:
    failpoint("kv.chunk")
    with view[start:stop] as chunk:
        link.put(chunk)
        digest.update(chunk)


def receive(link: Link, view: memoryview) -> bytes:
    """In a thread: receive the payload; its checksum."""
    digest = Checksum()
    for start, stop in chunk_ranges(len(view)):
        link.still_wanted()
        with view[start:stop] as chunk:
            link.fill(chunk)
            digest.update(chunk)
    return digest.digest()


def _own_address(family: int) -> str:
    """The address that our packets to others carry. Nothing is sent: connecting a datagram socket picks a route."""
    elsewhere = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # reserved for documentation
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((elsewhere, 9))
            return str(sock.getsockname()[0])
        except OSError:  # no route: a machine with loopback only
            return "127.0.0.1" if family == socket.AF_INET else "::1"
