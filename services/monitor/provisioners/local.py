"""The provisioner of a local cluster: asks `baton up`, which owns the processes, over a socket. Keeps nothing."""

import asyncio
import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from services.monitor.provisioners import ARRIVE_S, check_options
from shared.config import MonitorSettings
from shared.errors import LinkLost, Overloaded, Unavailable
from shared.local_supply import MOST_BYTES, OPTION, SOCKET, Asked, Release, Supplied, Want, line

ANSWER_S: Final = 10.0


class LocalProvisioner:
    """Processes of this machine. One connection per question: `baton up` may have been slow, never another one's."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._directory = Path(check_options(settings, [OPTION], [OPTION])[OPTION])
        self._most = settings.most_instances

    async def open(self) -> None:
        """Need nothing: `baton up` starts us, so it listens."""

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        """Have standbys started; see the protocol."""
        answer = await self._ask(Want(missing, sorted(seen), self._most, ARRIVE_S))
        if answer.full:
            why = answer.short or f"monitor.most_instances is {self._most}"
            raise Overloaded(f"{answer.full} more instances are needed, but {why}", reason="most")
        return answer.started

    async def release(self, instance: str) -> None:
        """Have an instance ended for good; see the protocol."""
        await self._ask(Release(instance))

    async def close(self) -> None:
        """Hold nothing."""

    async def _ask(self, question: Asked) -> Supplied:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = msgspec.json.decode(await self._exchange(line(question)), type=Supplied)
        except (OSError, TimeoutError, EOFError, ValueError, msgspec.MsgspecError) as error:
            raise LinkLost(f"`baton up` does not answer at {self._directory / SOCKET}: {error}") from error
        if answer.error:
            raise Unavailable(f"`baton up` refused: {answer.error}")
        return answer

    async def _exchange(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(sock=await _connected(self._directory), limit=MOST_BYTES)
        try:
            writer.write(question)
            await writer.drain()
            return await reader.readuntil(b"\n")
        finally:
            writer.close()


async def _connected(directory: Path) -> socket.socket:
    """Connect to the socket of a directory whose path may be longer than the 107 bytes that an address holds."""
    entry = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.setblocking(False)
        await asyncio.get_running_loop().sock_connect(link, f"/proc/self/fd/{entry}/{SOCKET}")
    except BaseException:
        link.close()
        raise
    finally:
        os.close(entry)
    return link
