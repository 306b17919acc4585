"""What changed from one map to the next, in plain sentences for the journal. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from shared.messages import Group, GroupPhase, Member, Role, ScenarioMap

PHASES: Final = {
    GroupPhase.COLLECT: "its instances are chosen",
    GroupPhase.LOAD: "its models load",
    GroupPhase.CONNECT: "every prefill pushes a buffer to every decode, to verify the pair",
    GroupPhase.OPEN: "it is open: requests come",
    GroupPhase.CLOSING: "it closes: no new request, its members finish what they hold",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to note."""

    kind: str
    text: str


def changes(old: ScenarioMap | None, new: ScenarioMap, told: Collection[str] = ()) -> list[Change]:
    """List what is new. Of instances that are `told` about elsewhere it is not said again that they left."""
    before = {group.name: group for group in old.groups} if old is not None else {}
    after = {group.name: group for group in new.groups}
    found = [one for name, group in after.items() for one in _group(before.get(name), group, told)]
    for name, group in before.items():
        if name not in after:
            found += [Change("group", f"group {name} is gone"), *_left(group, None, told)]
    if old is not None and old.target != new.target:
        found.append(Change("revision", f"all groups are to run revision {new.target}"))
    return found


def _group(old: Group | None, new: Group, told: Collection[str]) -> Iterator[Change]:
    if old is None:
        size = f"{_count(new.prefills, 'prefill')} and {_count(new.decodes, 'decode')}"
        yield Change("group", f"group {new.name} is set up with {size}, revision {new.revision}: {PHASES[new.phase]}")
    else:
        if (old.prefills, old.decodes) != (new.prefills, new.decodes):
            size = f"{_count(new.prefills, 'prefill')} and {_count(new.decodes, 'decode')}"
            yield Change("plan", f"group {new.name} is to have {size}, instead of {old.prefills} and {old.decodes}")
        if old.phase is not new.phase:
            yield Change("phase", f"group {new.name}, {new.phase.value}: {PHASES[new.phase]}")
        if old.revision != new.revision:
            yield Change("revision", f"group {new.name} is to run revision {new.revision}, instead of {old.revision}")
        if old.canary != new.canary:
            yield Change("canary", _canary(new))
        yield from _left(old, new, told)
    yield from _come(old, new)


def _come(old: Group | None, new: Group) -> Iterator[Change]:
    known = _members(old)
    for instance, (role, member) in _members(new).items():
        was = known.get(instance)
        if was is not None and was[0] is role and was[1].joined >= member.joined:
            continue
        if member.joined:
            yield Change("joined", f"{instance} has joined group {new.name} as {role.value}")
        elif was is None or was[0] is not role:
            yield Change("joining", f"{instance} is in group {new.name} as {role.value}; its links are being verified")


def _left(old: Group, new: Group | None, told: Collection[str]) -> Iterator[Change]:
    stays = _members(new)
    for instance, (role, _) in _members(old).items():
        if instance in told or (instance in stays and stays[instance][0] is role):
            continue
        yield Change("left", f"{instance} is no {role.value} of group {old.name} any more")


def _members(group: Group | None) -> dict[str, tuple[Role, Member]]:
    if group is None:
        return {}
    prefills = {member.instance: (Role.PREFILL, member) for member in group.prefill}
    return prefills | {member.instance: (Role.DECODE, member) for member in group.decode}


def _canary(group: Group) -> str:
    if group.canary:
        return f"group {group.name} is a canary: {group.canary} % of the requests go there"
    return f"group {group.name} is a canary no more"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
