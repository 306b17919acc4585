"""Small questions to ports: is it free, does it answer, is the gateway behind it ready. Holds no state."""

import asyncio
import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Find a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def port_taken(host: str, port: int) -> str | None:
    """Say why a port cannot be listened on, or return None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: connections in TIME_WAIT are no owners
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return None


def reachable(host: str) -> str:
    """Turn an address to listen on into one to connect to."""
    return {"0.0.0.0": HOST, "": HOST, "::": "::1"}.get(host, host)  # noqa: S104  compared, not listened on


def in_url(host: str) -> str:
    """Write an address as URLs want it."""
    return f"[{host}]" if ":" in host else host


async def ready(host: str, port: int) -> None:
    """Return once a gateway says that a request would succeed; the caller sets the deadline."""
    question = f"GET /readyz HTTP/1.1\r\nHost: {in_url(host)}\r\nConnection: close\r\n\r\n".encode()
    while not (await exchange(host, port, question, b"\r\n")).startswith(b"HTTP/1.1 200 "):  # noqa: ASYNC110  another process's state
        await asyncio.sleep(0.05)


async def exchange(host: str, port: int, question: bytes, until: bytes, seconds: float = 1.0) -> bytes:
    """Send bytes to a port and return what comes back up to `until`; empty when nobody listens."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question)
                return await reader.readuntil(until)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""
