"""What an instance tells of itself: its Status on the bus, its record in Redis. Pure."""

import os
from dataclasses import dataclass
from typing import Protocol

from shared.messages import VERSION, Epoch, Health, InstanceRecord, Role, State, Status, Work


@dataclass(frozen=True, slots=True)
class Load:
    """What a service can take now; goes into each Status."""

    slots: int = 0
    free: int = 0
    steps: int = 0
    busy: bool = False
    kv_free_bytes: int = 0
    work: Work | None = None  # of a worker, since it started


class Teller(Protocol):
    """Whose Status and record it is."""

    role: Role
    id: str
    scenario: str
    group: str
    revision: int
    host: str
    health_url: str
    state: State
    health: Health
    ailment: str

    @property
    def epoch(self) -> Epoch:
        """Of its lease."""
        ...


def status(teller: Teller, state: State, load: Load, number: int) -> Status:
    """Tell the fleet. Whoever is not well has nothing free: nobody should even ask."""
    return Status(
        instance=teller.id,
        epoch=teller.epoch,
        role=teller.role,
        state=state,
        scenario=teller.scenario,
        group=teller.group,
        slots=load.slots,
        free=0 if teller.health is Health.FAILED else load.free,
        steps=load.steps,
        busy=load.busy,
        kv_free_bytes=load.kv_free_bytes,
        number=number,
        version=VERSION,
        health=teller.health,
        revision=teller.revision,
        work=load.work,
    )


def record(teller: Teller, load: Load, reason: str) -> InstanceRecord:
    """Tell whoever looks into Redis. `reason` is why it stops; while it lives, why its health is not better."""
    return InstanceRecord(
        id=teller.id,
        role=teller.role,
        state=teller.state,
        epoch=teller.epoch,
        scenario=teller.scenario,
        group=teller.group,
        pid=os.getpid(),
        host=teller.host,
        slots=load.slots,
        load=max(0, load.slots - load.free),
        health_url=teller.health_url,
        version=VERSION,
        reason=reason or teller.ailment,
        health=teller.health,
        revision=teller.revision,
    )
