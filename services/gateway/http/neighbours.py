"""Who else listens on a port that may be shared: other gateways are welcome, another program is not.

With SO_REUSEPORT the kernel hides the conflict from two programs of one user, and gives each a part of the clients.
"""

import asyncio
import socket
import ssl
from typing import Final

from shared.errors import LinkLost

ASK_S: Final = 2.0
_QUESTION: Final = b"GET /healthz HTTP/1.1\r\nHost: neighbour\r\nConnection: close\r\n\r\n"
_OURS: Final = b"server: baton"
_REACHABLE: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not listened on


async def check_neighbours(host: str, port: int, *, tls: bool) -> None:
    """Return when nobody or only gateways listen there. Raises LinkLost."""
    if not port or _free(host, port):
        return
    answer = await _ask(_REACHABLE.get(host, host), port, tls=tls)
    if answer is not None and _OURS not in answer.lower():
        raise LinkLost(f"another program listens on {host}:{port}; gateway.reuse_port shares it with gateways alone")


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def _ask(host: str, port: int, *, tls: bool) -> bytes | None:
    """Get the head of an answer; None when who is there does not tell: a gateway that is busy or ending."""
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=_unverified() if tls else None)
            try:
                writer.write(_QUESTION)
                return await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()
    except (ConnectionError, TimeoutError, ssl.SSLEOFError):
        return None
    except ssl.SSLError as error:
        return None if "CERTIFICATE_REQUIRED" in str(error) else b""
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""


def _unverified() -> ssl.SSLContext:
    """Nothing is told over it, and nothing believed but that a gateway is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
