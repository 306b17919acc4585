"""Waits for a role. Accepts one, once; what becoming it means is `shared.becoming`'s business. Loads no model."""

from contextlib import AsyncExitStack

from shared.becoming import Becoming
from shared.checkup import Checkup
from shared.lifecycle import Instance, Load
from shared.messages import AssignRole, Role


class Standby:
    """An instance without a role yet."""

    role = Role.STANDBY

    def __init__(self) -> None:
        self.becoming = Becoming()
        self._instance: Instance | None = None

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:  # noqa: ARG002  nothing to undo
        """Remember the instance; orders come through its control subject."""
        self._instance = instance
        _ = instance.vital.spawn(Checkup(instance).run(), name=f"{instance.id} checkup")

    def load(self) -> Load:
        """Report no slots: a standby serves nobody."""
        return Load()

    async def drain(self, seconds: float) -> None:
        """Hold nothing, so finish at once."""

    async def assign(self, order: AssignRole) -> None:
        """Accept a role."""
        if self._instance is not None:
            await self.becoming.accept(self._instance, order)
