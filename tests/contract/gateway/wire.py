"""Raw HTTP: what a client sends and gets, byte for byte."""

import asyncio
from typing import Any

from tests.contract.gateway.house import WORDS, House

TEXT = "".join(WORDS)
HELLO: Any = [{"role": "user", "content": "hello"}]


async def raw(house: House, request: bytes, *, until: bytes = b"") -> bytes:
    """Send bytes on a connection of its own and read its answer to the end, or until some bytes have come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(request)
        got = b""
        async with asyncio.timeout(10):
            while not (until and until in got):
                data = await reader.read(65536)
                if not data:
                    break
                got += data
        return got
    finally:
        writer.close()
        await writer.wait_closed()


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body
