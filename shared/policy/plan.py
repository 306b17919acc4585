"""What a scenario's groups are to be: the word of the deciders above (ratio, scale, upgrade) to the fleet's decider.

A plan is a wish. Who serves where, and in which order members come and go, is `fleet`'s business.
"""

from dataclasses import dataclass, replace

from shared.messages import Revision, Role


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One group as it is to be."""

    name: str
    prefill: int
    decode: int
    revision: int = 0
    strategy: str = ""
    canary: int = 0  # percent of the requests that go here and nowhere else; 0: an ordinary group

    def wanted(self, role: Role) -> int:
        """Count the members wanted of a role."""
        return self.prefill if role is Role.PREFILL else self.decode

    @property
    def size(self) -> int:
        """Count all members wanted."""
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario's groups in order, and the revisions of its model that are known."""

    scenario: str
    groups: tuple[GroupPlan, ...]
    revisions: tuple[Revision, ...] = ()
    target: int = 0

    def group(self, name: str) -> GroupPlan | None:
        """Find a group."""
        return next((group for group in self.groups if group.name == name), None)

    def with_group(self, changed: GroupPlan) -> "Plan":
        """Put a group in the place of the one of its name, or behind the others."""
        if self.group(changed.name) is None:
            return replace(self, groups=(*self.groups, changed))
        return replace(self, groups=tuple(changed if one.name == changed.name else one for one in self.groups))

    def without(self, name: str) -> "Plan":
        """Leave a group out: it closes."""
        return replace(self, groups=tuple(one for one in self.groups if one.name != name))

    @property
    def size(self) -> int:
        """Count all members wanted."""
        return sum(group.size for group in self.groups)
