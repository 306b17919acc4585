"""One running instance: who it is, what it shares with its service, and how the fleet sees it.

Owns the lease, the epoch, the heartbeat, the record in Redis and the verdict on being cut off. Knows nothing of
what the service does. Redis may go away while it runs: everything here then goes on with what it knows.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, telling
from shared.bus import Bus, Delivery
from shared.config import Config
from shared.errors import BatonError, DeadlineExceeded, LeaseLost, MalformedMessage, Unavailable
from shared.leases import MARGIN, Confirmed, Lease, Taken, open_lease_client
from shared.messages import AssignRole, Epoch, Health, Pulse, Role, State, Status, decode, encode
from shared.reloading import Reloading
from shared.stopping import Stopping
from shared.subjects import Subjects
from shared.tasks import Tasks
from shared.telemetry import Telemetry
from shared.telling import Load
from shared.tenure import Tenure

__all__ = ["WORKERS", "Instance", "InstanceStats", "Load", "new_id"]

WORKERS = (Role.PREFILL, Role.DECODE)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class InstanceStats:
    """Counters since start."""

    heartbeats: int = 0
    lease_confirmed: int = 0
    lease_unconfirmed: int = 0  # calls that Redis did not answer
    tenures_broken: int = 0
    records_unwritten: int = 0


class Instance:
    """What a service is given at `open`. All of it belongs to the event loop's thread."""

    def __init__(
        self, role: Role, reloading: Reloading, *, bus: Bus, redis: Redis, telemetry: Telemetry, stopping: Stopping
    ) -> None:
        config = reloading.config
        self.role = role
        self.bus = bus
        self.redis = redis  # for the service's own reads and writes; leases have a client of their own
        self.telemetry = telemetry
        self.id = config.instance.id or new_id(role)
        self.scenario = config.instance.scenario
        self.group = config.instance.group
        self.revision = config.instance.revision  # of the scenario's model
        self.host = socket.gethostname()
        self.health_url = ""
        self.state = State.STARTING
        self.ready = asyncio.Event()  # set once it is, for good
        self.health = Health.OK
        self.ailment = ""  # why the health is not better
        self.subjects = Subjects(config.nats.prefix)
        self.tasks = Tasks(self.id)  # of the service; a failure is logged and counted
        self.vital = Tasks(self.id, on_failure=self._vital_failed)  # a failure here ends the instance
        self.stats = InstanceStats()
        self.load: Callable[[], Load] = Load
        self._stopping = stopping
        self.reloading = reloading  # where parts say which keys they can change while they run
        self._lease_client = open_lease_client(config.redis, config.fleet.lease_ttl_s)
        self._lease = Lease(self._lease_client, self.id, config.fleet.lease_ttl_s)
        self._tenure = Tenure(config.fleet.lease_ttl_s, margin_s=config.fleet.lease_ttl_s * MARGIN)
        self._broken: list[Callable[[], None]] = []
        self._requirements: list[Callable[[], str]] = []
        self._was_cut_off = False
        self._record_due = asyncio.Event()
        self._number = 0
        self._taken_by = ""

    @property
    def config(self) -> Config:
        """What is in force now."""
        return self.reloading.config

    @property
    def epoch(self) -> Epoch:
        """Of the lease as last confirmed; goes with everything this instance sends."""
        return self._tenure.epoch

    @property
    def cut_off(self) -> bool:
        """Whether to stop acting: others are being told that we are gone. See `shared.tenure`."""
        return self._tenure.cut_off(time.monotonic())

    def when_broken(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time others have taken over from us: drop all that was begun before."""
        self._broken.append(callback)

    def require(self, check: Callable[[], str]) -> None:
        """Add a reason not to be ready; `check` returns it, or nothing."""
        self._requirements.append(check)

    def why_not_ready(self) -> str:
        """Say why a request would not be served here; nothing when it would."""
        if self.state is not State.READY:
            return f"{self.state.value}"
        if not self.bus.connected:
            return "not connected to NATS"
        if self.cut_off:
            return "cut off from Redis"
        if self.health is Health.FAILED:
            return f"its device has failed: {self.ailment}"
        return next((why for check in self._requirements if (why := check())), "")

    def already(self, order: AssignRole) -> bool:
        """Say whether this instance is what an order wants it to become."""
        if order.role is Role.STANDBY:
            return self.role is Role.STANDBY
        wanted = (order.role, order.scenario, order.group, order.revision.number)
        return (self.role, self.scenario, self.group, self.revision) == wanted

    def stop(self, reason: str, *, failed: bool = False) -> None:
        """Ask for the end of this instance: orderly, or at once and with a failing exit code."""
        self._stopping.ask(reason, failed=failed)

    def leave(self, reason: str, drain_s: float) -> None:
        """Ask for the end of what this instance is, so that it becomes something else; so long for what it holds."""
        self._stopping.ask(reason, drain_s=drain_s, passing=True)

    @property
    def passing(self) -> bool:
        """Whether it was asked to leave, and by nobody to end."""
        return self._stopping.passing

    async def enter(self, state: State) -> None:
        """Change state and tell everyone: dispatchers must stop choosing us before we refuse."""
        self.state = state
        if state is State.READY:
            self.ready.set()
        self._record_due.set()
        await self.announce()

    async def feel(self, health: Health, ailment: str = "") -> None:
        """Take in how well device and node are, and tell everyone of a change at once."""
        changed, self.ailment = health is not self.health, ailment
        if not changed:
            return
        self.health = health
        level = logging.INFO if health is Health.OK else logging.WARNING
        log.log(level, "the health has changed", extra={"health": health.value, "why": ailment})
        self._record_due.set()
        await self.announce()

    async def announce(self) -> None:
        """Publish Status now; silently nothing while NATS is away."""
        self._number += 1
        status = self._status()
        worker = self.role in WORKERS and bool(self.scenario)
        subject = self.subjects.status(self.scenario, self.id) if worker else self.subjects.fleet_status(self.id)
        try:
            await self.bus.publish(subject, status, traced=False)
        except BatonError as error:
            log.debug("status not sent", extra={"error": str(error)})

    def _status(self) -> Status:
        load = self.load() if self.state in (State.READY, State.DRAINING) else Load()
        state = State.DRAINING if self.state is State.READY and self.cut_off else self.state
        return telling.status(self, state, load, self._number)

    # ---- for the lifecycle ------------------------------------------------------------------------------------------

    async def enlist(self, timeout_s: float) -> None:
        """Take the lease, then keep lease, heartbeat and record alive. A dead holder's lease is waited for.

        Raises LeaseLost when a living instance has this id, DeadlineExceeded when Redis does not answer.
        """
        ttl_s = self.config.fleet.lease_ttl_s
        now = time.monotonic()
        give_up, dead_by = now + timeout_s, now + ttl_s * 1.5
        while not await self._confirm():
            if time.monotonic() > dead_by and self._taken_by:
                raise LeaseLost(f"another living instance has the id {self.id!r}; give this one another --id")
            if time.monotonic() > give_up:
                raise DeadlineExceeded(f"Redis did not confirm the lease of {self.id} within {timeout_s:g} s")
            await asyncio.sleep(ttl_s / 10)
        await self.bus.subscribe(self.subjects.pulse(), self._on_pulse)
        # that somebody listens is all that is asked: NATS tells whoever asks when nobody does
        await self.bus.subscribe(self.subjects.presence(self.id), lambda _: None)
        _ = self.vital.spawn(self._keep_lease(ttl_s / 3), name=f"{self.id} lease")
        _ = self.vital.spawn(self._keep_heartbeat(), name=f"{self.id} heartbeat")
        _ = self.vital.spawn(self._keep_record(ttl_s / 3), name=f"{self.id} record")

    async def discharge(self) -> None:
        """End what `enlist` began: last word on the bus, last record in Redis, lease given up. Bounded by timeouts."""
        self.state = State.FAILED if self._stopping.failed else State.STOPPED
        await self.tasks.close()
        await self.vital.close()
        await self.announce()
        if self.epoch != (0, 0):
            await self._write_record()
        await self._lease.release()
        await self._lease_client.aclose()

    async def _confirm(self) -> bool:
        self._tenure.awake(time.monotonic())
        try:
            outcome = await self._lease.confirm()
        except Unavailable as error:
            self.stats.lease_unconfirmed += 1
            log.warning("lease not confirmed", extra={"error": str(error)})
            self._check_cut_off()
            return False
        match outcome:
            case Taken(owner=owner):
                self._taken_by = owner
                return False
            case Confirmed(epoch=epoch, created=created, sent_at=sent_at):
                self.stats.lease_confirmed += 1
                self._tenure.awake(time.monotonic())  # the answer may have waited for us through a stop
                if self._tenure.confirmed(epoch, sent_at, created=created):
                    self._break("the lease was missing for a while")
                self._taken_by = ""
                return True

    async def _keep_lease(self, every_s: float) -> None:
        while True:
            await self._confirm()
            if self._taken_by:
                self.stop(f"another instance has taken the lease of {self.id}", failed=True)
                return
            await asyncio.sleep(every_s)

    async def _keep_heartbeat(self) -> None:
        while True:
            self._tenure.awake(time.monotonic())
            if self.bus.closed:
                self.stop("the connection to NATS is closed for good", failed=True)
                return
            self._check_cut_off()
            await self.announce()
            self.stats.heartbeats += 1
            await asyncio.sleep(self.config.fleet.heartbeat_s)

    async def _keep_record(self, every_s: float) -> None:
        while True:
            self._record_due.clear()
            await self._write_record()
            try:
                async with asyncio.timeout(every_s):
                    await self._record_due.wait()
            except TimeoutError:
                continue

    async def _write_record(self) -> None:
        load = self.load() if self.state in (State.READY, State.DRAINING) else Load()
        record = telling.record(self, load, self._stopping.reason)
        try:
            await self.redis.set(keys.instance(self.id), encode(record), px=keys.RECORD_TTL_MS)
        except (RedisError, OSError, TimeoutError) as error:
            self.stats.records_unwritten += 1
            log.debug("record not written", extra={"error": str(error)})

    def _check_cut_off(self) -> None:
        cut_off = self.cut_off
        if cut_off and not self._was_cut_off:
            self._break("Redis confirms the monitor's lease but not ours")
        self._was_cut_off = cut_off

    def _break(self, why: str) -> None:
        self.stats.tenures_broken += 1
        log.error("tenure broken; what was begun is dropped", extra={"why": why, "epoch": self.epoch})
        for callback in self._broken:
            callback()

    def _on_pulse(self, delivery: Delivery) -> None:
        try:
            pulse: Pulse = decode(delivery.data, Pulse, "pulse")
        except MalformedMessage as error:
            log.warning("pulse refused", extra={"error": str(error)})
            return
        self._lease.saw(pulse.epoch)
        self._tenure.pulse(pulse.epoch, time.monotonic())

    def _vital_failed(self, name: str, error: BaseException) -> None:
        self.stop(f"{name} failed: {error}", failed=True)


def new_id(role: Role) -> str:
    """Make an id that no other instance has."""
    return f"{role.value}-{secrets.token_hex(4)}"
