"""The socket on which `baton up` hears the monitor's wishes for instances. Owns the listening, the cluster the rest.

Whoever may enter the state directory may speak here, which is its owner alone.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import LinkLost
from shared.local_supply import MOST_BYTES, SOCKET, Asked, Supplied, line

QUESTION_S: Final = 5.0
MOST_ASKERS: Final = 16

log = logging.getLogger(__name__)


class Supply:
    """Answers one question per connection with what `handle` says."""

    def __init__(self, directory: Path, handle: Callable[[Asked], Supplied]) -> None:
        self._directory = directory
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._askers = 0

    async def open(self) -> None:
        """Listen. Raises LinkLost when that cannot be."""
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=_bound(self._directory), limit=MOST_BYTES)
        except OSError as error:
            raise LinkLost(f"cannot listen at {self._directory / SOCKET}: {error.strerror}") from error

    async def close(self) -> None:
        """Listen no more; idempotent."""
        if self._server is not None:
            self._server.close()
            (self._directory / SOCKET).unlink(missing_ok=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._askers += 1
        try:
            if self._askers <= MOST_ASKERS:
                async with asyncio.timeout(QUESTION_S):
                    writer.write(line(self._answer(await reader.readuntil(b"\n"))))
                    await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            log.debug("who asked for instances has gone")
        finally:
            self._askers -= 1
            with contextlib.suppress(OSError):
                writer.close()

    def _answer(self, question: bytes) -> Supplied:
        try:
            asked: Asked = msgspec.json.decode(question, type=Asked)
        except msgspec.MsgspecError as error:
            return Supplied(error=f"this is no question of ours: {error}")
        return self._handle(asked)


def _bound(directory: Path) -> socket.socket:
    """Make the socket in a directory whose path may be longer than the 107 bytes that an address holds."""
    (directory / SOCKET).unlink(missing_ok=True)  # of a cluster that was killed; the directory is ours alone
    entry = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"/proc/self/fd/{entry}/{SOCKET}")
        (directory / SOCKET).chmod(0o600)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(entry)
    return listener
