"""Waits for a role. Accepts one, once; what becoming it means is `__main__`'s business. Loads no model."""

import asyncio
from contextlib import AsyncExitStack

from shared.errors import BadRequest, Draining, UnknownScenario
from shared.lifecycle import Instance, Load
from shared.messages import AssignRole, Role, State

ROLES = (Role.PREFILL, Role.DECODE)


class Standby:
    """`assignment` is set once a role has been accepted; the instance then stops in order."""

    role = Role.STANDBY

    def __init__(self) -> None:
        self.assignment: AssignRole | None = None
        self._instance: Instance | None = None

    @property
    def id(self) -> str:
        """Of the instance, kept by what it becomes."""
        return self._instance.id if self._instance is not None else ""

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:  # noqa: ARG002  nothing to undo
        """Remember the instance; orders come through its control subject."""
        self._instance = instance

    def load(self) -> Load:
        """Report no slots: a standby serves nobody."""
        return Load()

    async def drain(self, seconds: float) -> None:
        """Hold nothing, so finish at once."""

    async def assign(self, message: AssignRole) -> None:
        """Accept a role. Asked again for the same one, accept again: the first answer may have been lost."""
        instance = self._instance
        if self.assignment == message:
            return
        if instance is None or instance.state is not State.READY or self.assignment is not None:
            raise Draining("this standby is leaving or has another role already")
        if message.role not in ROLES:
            raise BadRequest(f"a standby cannot become a {message.role.value}", "role")
        if message.scenario not in instance.config.scenarios:
            known = ", ".join(sorted(instance.config.scenarios)) or "none"
            raise UnknownScenario(f"this standby is configured for {known}, not for {message.scenario!r}")
        self.assignment = message
        # Later, so that the answer goes out first.
        asyncio.get_running_loop().call_soon(instance.stop, f"becomes {message.role.value} of {message.scenario}")
