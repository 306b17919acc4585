"""What becomes of a `FleetWorld` whose faults end: every group as planned, and nobody who is dead in the map."""

from shared.messages import GroupPhase, Health, State
from tests.unit.policy.fleet_world import PATIENT, FleetWorld

PATIENT_ROUNDS = 20
MOST_ROUNDS = 150


def heal(world: FleetWorld) -> None:
    """A leader, a good pipe and standbys enough: every group reaches its size."""
    if world.leader is None:
        world.elect(0)
    patient = world.rules is PATIENT
    for turn in range(PATIENT_ROUNDS if patient else MOST_ROUNDS):
        if turn < (8 if patient else 30):
            world.instances.add_standby()
        pass_round(world)
        if not patient and turn > 5 and settled(world) and not dead(world):
            break
    assert not dead(world), "the dead have left"
    if not patient:  # else the holes that the leader did not see happen are not filled: it never settles
        check(world)


def pass_round(world: FleetWorld) -> None:
    """Let everybody go on and say so, and the leader see who is gone."""
    for one in world.instances:
        world.go_on(one.name)
        one.health = Health.OK
        if not one.told and one.state is State.DRAINING:
            one.state = State.STOPPED
    for _ in range(2):
        world.all_speak()
    members = (name for place in world.wanted() for name in world.members(place))
    for name in dict.fromkeys([*world.instances.by_name, *members]):
        world.lease_watch(name)
    world.time_out_orders()
    world.advance(0.4)


def dead(world: FleetWorld) -> set[str]:
    """Name the members that are no more."""
    assert world.stored is not None
    alive = {(one.name, one.epoch) for one in world.instances}
    members = [one for group in world.stored.groups for one in (*group.prefill, *group.decode)]
    return {member.instance for member in members if (member.instance, member.epoch) not in alive}


def settled(world: FleetWorld) -> bool:
    """Whether the leader says that all is as planned."""
    return world.leader is not None and world.monitors[world.leader].settled("chat")


def check(world: FleetWorld) -> None:
    """Compare what is with what is wanted, whatever the leader says."""
    assert world.stored is not None
    short = {place: count - len(world.members(place)) for place, count in world.wanted().items()}
    assert set(short.values()) == {0}, short
    assert {group.phase for group in world.stored.groups} == {GroupPhase.OPEN}
    assert all(one.joined for group in world.stored.groups for one in (*group.prefill, *group.decode))
    assert settled(world)
