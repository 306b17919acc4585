"""The standbys that can be sent, and those that there are too many of.

Owns who is free, who said no lately, and who was given back to the provisioner. Where they go is not its business.
"""

from collections.abc import Callable

from shared.messages import Epoch
from shared.policy.deadlines import Deadlines
from shared.policy.fleet.events import FleetRules, Release
from shared.policy.fleet.plans import REMEMBERED
from shared.policy.recent import Recent


class Spares:
    """Free standbys, the first known first; a degraded one is taken when there is no other."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._well: dict[str, None] = {}
        self._degraded: dict[str, None] = {}
        self._unfit: Deadlines[str] = Deadlines()
        self._released: Recent[str, Epoch] = Recent(REMEMBERED)
        self._too_many_since: float | None = None

    @property
    def free(self) -> int:
        """Count those that are well."""
        return len(self._well)

    @property
    def refusing(self) -> int:
        """Count those that said no lately."""
        return len(self._unfit)

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._well or self._degraded)

    def available(self, standby: str, epoch: Epoch, *, degraded: bool) -> None:
        """Note a standby that can be sent."""
        if standby in self._unfit or self._released.get(standby) == epoch:
            return
        mine, other = (self._degraded, self._well) if degraded else (self._well, self._degraded)
        mine[standby] = None
        other.pop(standby, None)

    def unavailable(self, instance: str) -> None:
        """Note that it cannot be sent."""
        self._well.pop(instance, None)
        self._degraded.pop(instance, None)

    def unfit(self, instance: str, now: float) -> None:
        """Do not send it for a while: it said no."""
        self.unavailable(instance)
        self._unfit.set(instance, now + self._rules.unfit_s)

    def fit(self, instance: str) -> bool:
        """Whether it has not said no lately."""
        return instance not in self._unfit

    def take(self) -> str:
        """Take one; there must be one."""
        instance = next(iter(self._well or self._degraded))
        self.unavailable(instance)
        return instance

    def release(self, epoch: Callable[[str], Epoch], now: float) -> list[Release]:
        """Give back those beyond the number wanted, when they have been too many for long enough; the latest first."""
        surplus = len(self._well) + len(self._degraded) - self._rules.standbys
        if not self._rules.release or surplus <= 0:
            self._too_many_since = None
            return []
        if self._too_many_since is None:
            self._too_many_since = now
        if now < self._too_many_since + self._rules.release_s:
            return []
        names = [*reversed(self._degraded), *reversed(self._well)][:surplus]
        self._too_many_since = None
        for name in names:
            self.unavailable(name)
            self._released.put(name, epoch(name))
        return [Release(name) for name in names]

    def elapse(self, now: float) -> None:
        """Forget old refusals. Who was unfit becomes available with its next status."""
        self._unfit.due(now)

    def next_deadline(self) -> float | None:
        """Say when `release` should be asked next."""
        return None if self._too_many_since is None else self._too_many_since + self._rules.release_s
