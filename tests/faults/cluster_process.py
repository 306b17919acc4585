"""One service of a fault test's cluster, as a process to be killed, frozen, thawed and waited for."""

import asyncio
import signal
from pathlib import Path

import psutil

from services.local.children import Child, Command
from shared.messages import Role
from tests.servers import HOST

ENDED_S = 60.0
"""For a hang, never for a verdict."""


class Process:
    """One service."""

    def __init__(self, role: Role, command: Command, health_port: int) -> None:
        self.role = role
        self.frozen = False
        self.health_url = f"http://{HOST}:{health_port}"
        self._child = Child(command)
        self._log = command.log

    @property
    def name(self) -> str:
        return self._child.name

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.status is None

    @property
    def log(self) -> Path:
        """What it printed, and whoever had its name before."""
        assert self._log is not None
        return self._log

    def kill(self) -> None:
        """End it as a crash would."""
        self._child.kill()

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay open."""
        self.frozen = True
        self._child.kill(signal.SIGSTOP)

    async def stopped(self, seconds: float = ENDED_S) -> None:
        """Wait until it has stopped itself, at a failpoint."""
        async with asyncio.timeout(seconds):
            while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        self.frozen = True

    def thaw(self) -> None:
        """Let it go on where it was."""
        self.frozen = False
        self._child.kill(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop."""
        self._child.kill(signal.SIGTERM)

    async def ended(self, seconds: float = ENDED_S) -> int:
        """Wait for its end; its exit status, negative where a signal killed it."""
        async with asyncio.timeout(seconds):
            return await self._child.ended()
