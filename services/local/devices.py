"""Who has which of the machine's devices: each worker of its own, until its process has ended. Starts nothing."""

from shared.config.devices import Devices

PLENTY = 1 << 30
"""How many more workers fit where devices set no limit."""


class DevicePool:
    """Hands out disjoint sets. Deterministic: the same calls give the same sets."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._held: dict[str, tuple[str, ...]] = {}

    @property
    def free(self) -> list[str]:
        """Those that nobody has, in the order of the configuration."""
        held = {one for some in self._held.values() for one in some}
        return [one for one in self._devices.ids if one not in held]

    def room(self, number: int) -> int:
        """How many workers that need so many could be given theirs."""
        return len(self.free) // number if number and self._devices.ids else PLENTY

    def take(self, holder: str, number: int) -> dict[str, str] | None:
        """Give a worker so many; returns the environment that shows it no others, or None where too few are free.

        Nothing is given where the machine's devices are not listed. What lies together is taken together: devices
        [k * number, (k + 1) * number) of the list are wired best to each other.
        """
        if not number or not self._devices.ids:
            return {}
        free = self.free
        if len(free) < number:
            return None
        aligned = [self._devices.ids[start : start + number] for start in range(0, len(self._devices.ids), number)]
        whole = (some for some in aligned if len(some) == number and set(some) <= set(free))
        self._held[holder] = next(whole, tuple(free[:number]))
        return self._devices.environment(self._held[holder])

    def give_back(self, holder: str) -> None:
        """Take back what a worker had, now that it has ended; one that had nothing is fine."""
        self._held.pop(holder, None)
