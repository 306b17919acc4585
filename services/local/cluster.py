"""The local cluster: starts servers and services, replaces what dies, stops everything in order and within a bound.

Chooses no role for anything: a worker that died is replaced by a standby, and the monitor decides what it becomes.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from services.local import servers
from services.local.children import Child, Command, stop
from services.local.devices import DevicePool
from services.local.permissions import own_client
from services.local.plan import WORKERS, Links, Plan, Start
from services.local.probes import free_port, in_url, port_taken, reachable, ready
from services.local.state import Cluster, StateDirectory
from services.local.supply import Supply
from shared.errors import BatonError, DeadlineExceeded
from shared.local_supply import Asked, Release, Supplied, Want
from shared.messages import Role
from shared.tasks import Tasks

READY_S = 300.0
"""From start to ready. Loading a large model takes minutes; a child that ends is noticed at once."""
SERVERS_S = 15.0
"""For the embedded servers to answer."""
SERVER_STOP_S = 5.0
STEADY_S = 60.0
"""A child that lived so long has not failed in a row."""
LONGEST_DELAY_S = 30.0

Say = Callable[[str], None]


class Backoff:
    """How long to wait before the next start of something that keeps ending."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def delay(self, kind: str, lived_s: float) -> float:
        """Seconds to wait, after one that lived so long has ended."""
        failures = 0 if lived_s >= STEADY_S else self._failures.get(kind, 0)
        self._failures[kind] = failures + 1
        return float(min(LONGEST_DELAY_S, 0.25 * 2**failures)) if failures else 0.0


class LocalCluster:
    """Owns every child process of one `baton up`. `start` once, `stop` once, from whatever state."""

    def __init__(self, plan: Plan, state: StateDirectory, say: Say) -> None:
        self.plan = plan
        self.state = state
        self._say = say
        self._children: dict[Child, Start | Command] = {}  # with what to start in its place
        self._tasks = Tasks("baton up", on_failure=self._task_failed)
        self._backoff = Backoff()
        self._links = Links("", "")
        self._devices = DevicePool(plan.devices)
        self._supply = Supply(state.path, self.supply)
        self._due = 0  # workers that ended, and a standby is not started yet in their place
        self._released: set[str] = set()
        self._ready = False
        self._stopping = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Holds the error that makes it pointless to go on."""

    def check_ports(self) -> None:
        """Raise BatonError when a port that was asked for is taken."""
        gateway, monitor = self.plan.config.gateway, self.plan.config.monitor
        for host, port, option in (
            (gateway.host, gateway.port, "--port"),
            (monitor.host, monitor.port, "--dashboard-port"),
        ):
            if port and (reason := port_taken(host, port)):
                raise BatonError(f"Port {port} on {host} cannot be used ({reason}); choose another one with {option}.")

    async def import_models(self) -> None:
        """Bring packaged models into the cache, once, before several workers need them at the same time."""
        for command in self.plan.imports():
            child = Child(command)
            self._children[child] = command
            status = await child.ended()
            del self._children[child]
            if status != 0:
                raise BatonError(f"The model could not be imported: {child.name} {child.how()}.")

    async def start(self) -> Cluster:
        """Start everything and return when a request would succeed. Raises BatonError."""
        config = self.plan.config
        port = config.gateway.port or free_port()
        health_ports = [free_port() for _ in range(self.plan.wishes.gateways)]
        dashboard = config.monitor.port or free_port()
        nats = await self._start_servers()
        starts = self.plan.starts(port, health_ports, dashboard)
        self._say(f"starting {', '.join(start.id for start in starts)}")
        for start in starts:
            _ = self._start(start)
        if (without := self.plan.wishes.standby - sum(start.role is Role.STANDBY for start in starts)) > 0:
            self._say(f"{without} of the standbys do not start: of instance.devices too few are free")
        await self.take_wishes()
        host = reachable(config.instance.health_host)
        await self._within(READY_S, *(ready(host, health_port) for health_port in health_ports))
        self._ready = True
        scheme = "https" if config.gateway.tls_cert else "http"
        url = f"{scheme}://{in_url(reachable(config.gateway.host))}:{port}/v1"
        return Cluster(
            pid=os.getpid(),
            url=url,
            gateways=[url],
            dashboard=f"http://{in_url(reachable(config.monitor.host))}:{dashboard}/",
            nats=nats.as_user("client"),
            nats_operator=nats.as_user("operator"),
            nats_prefix=config.nats.prefix,
            redis=self._links.redis_url,
            nats_clients={name: nats.as_user(own_client(name)) for name in config.nats.clients},
        )

    async def stop(self) -> list[str]:
        """End every child: first who takes requests or decides, then workers, then servers. Returns who was killed."""
        self._stopping = True
        await self._supply.close()
        await self._tasks.close()
        fleet = self.plan.config.fleet
        first = [child for child, start in self._children.items() if _role(start) in {Role.GATEWAY, Role.MONITOR}]
        workers = [child for child, start in self._children.items() if _role(start) in WORKERS]
        rest = [child for child, start in self._children.items() if _role(start) is None]
        killed = await stop(first, fleet.drain_s + fleet.stop_s)
        killed += await stop(workers, fleet.stop_s)
        return killed + await stop(rest, SERVER_STOP_S)

    def kill(self) -> None:
        """End every child now."""
        for child in self._children:
            child.kill(signal.SIGKILL)

    # ---- starting ----------------------------------------------------------------------------------------------------

    async def _start_servers(self) -> servers.NatsAddress:
        config = self.plan.config
        started = []
        nats = servers.NatsAddress(config.nats.url, {})
        redis_url = config.redis.url
        if not config.nats.url:
            server, nats = servers.nats(self.state, config.nats.prefix, config.nats.clients)
            started.append(server)
        if not config.redis.url:
            server, redis_url = servers.redis(self.state)
            started.append(server)
        if started:
            self._say(f"starting {' and '.join(server.command.name for server in started)}")
        for server in started:
            _ = self._start(server.command)
        await self._within(SERVERS_S, *(server.answering() for server in started))
        if not config.redis.url:
            await servers.forget_fleet(redis_url)
        self._links = Links(nats.url, redis_url, nats.passwords, str(self.state.path))
        return nats

    def _start(self, start: Start | Command) -> bool:
        """Start a server, or an instance with devices of its own; False where too few are free for it."""
        command = start if isinstance(start, Command) else self.plan.command(start, self._links, self.state.logs)
        if isinstance(start, Start):
            devices = self._devices.take(start.id, self.plan.needs(start))
            if devices is None:
                return False
            command = replace(command, env={**command.env, **devices})
        self._children[Child(command, self._ended)] = start
        return True

    async def _within(self, seconds: float, *conditions: Coroutine[Any, Any, None]) -> None:
        """Wait for all conditions. Raises BatonError when a child ends first or the time is over."""
        waiting: asyncio.Future[list[None]] = asyncio.gather(*conditions)
        either: set[asyncio.Future[Any]] = {waiting, self.broken}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self.broken.done():
                self.broken.result()
            if not waiting.done():
                raise DeadlineExceeded(
                    f"The cluster was not ready within {seconds:.0f} s; its logs are in {self.state.logs}."
                )
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    # ---- the monitor's wishes ----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Of the instances that run."""
        return [child.name for child, start in self._children.items() if _role(start) is not None]

    async def take_wishes(self) -> None:
        """From now on do what the monitor asks for. What was started already counts as on its way."""
        await self._supply.open()

    def supply(self, asked: Asked) -> Supplied:
        """Start standbys, or end an instance, as the monitor wishes. Can be repeated: what is on its way counts."""
        if self._stopping:
            return Supplied(error="the cluster stops")
        match asked:
            case Want():
                return self._provide(asked)
            case Release(instance=instance):
                for child in [child for child, start in self._children.items() if _is(instance, start)]:
                    self._released.add(instance)
                    _ = self._tasks.spawn(self._end(child), name=f"release {instance}")
                return Supplied()

    def _provide(self, wish: Want) -> Supplied:
        workers = [child for child, start in self._children.items() if _role(start) in WORKERS]
        seen = set(wish.seen)
        coming = [child for child in workers if child.name not in seen and child.lived_s < wish.arrive_s]
        missing = max(0, wish.missing - len(coming) - self._due)
        allowed = min(missing, max(0, wish.most - len(workers) - self._due))
        each = self.plan.needs(Start("", Role.STANDBY))
        fits = min(allowed, max(0, self._devices.room(each) - self._due))
        standbys = [self.plan.start(Role.STANDBY) for _ in range(fits)]
        started = [start.id for start in standbys if self._start(start)]
        if started:
            self._say(f"the monitor asked for {', '.join(started)}")
        full = missing - len(started)
        short = f"of instance.devices fewer than {each} are free" if full and fits < allowed else ""
        return Supplied(started, full, short=short)

    async def _end(self, child: Child) -> None:
        """See to it that one leaves that was told to drain: a signal now would cut its drain short."""
        fleet = self.plan.config.fleet
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fleet.drain_s + fleet.stop_s):
                _ = await child.ended()
        for name in await stop([child], fleet.stop_s):
            self._say(f"{name} did not leave in time and was killed")

    # ---- replacing ---------------------------------------------------------------------------------------------------

    def _ended(self, child: Child) -> None:
        start = self._children.pop(child)
        self._devices.give_back(child.name)
        if self._stopping:
            return
        if child.status == 0 or child.name in self._released:
            self._released.discard(child.name)
            self._say(f"{child.name} has left")  # drained: whoever asked for it does not want it back
        elif self._ready:
            self._due += _role(start) in WORKERS
            _ = self._tasks.spawn(self._replace(child, start), name=f"replace {child.name}")
        elif not self.broken.done():
            self.broken.set_exception(BatonError(f"{child.name} {child.how()} while starting:\n{child.last_words()}"))

    async def _replace(self, child: Child, start: Start | Command) -> None:
        following = self._following(start)
        name = following.name if isinstance(following, Command) else following.id
        delay = self._backoff.delay(name if isinstance(following, Command) else following.role, child.lived_s)
        self._say(f"{child.name} {child.how()}; {name} starts in its place{f' in {delay:.0f} s' if delay >= 1 else ''}")
        await asyncio.sleep(delay)
        self._due -= _role(start) in WORKERS
        if not self._start(following):  # the monitor asks again, for whatever is missing then
            self._say(f"{name} does not start: of instance.devices too few are free")

    def _following(self, start: Start | Command) -> Start | Command:
        if isinstance(start, Command):
            return start  # a server comes back on its port
        if start.role in WORKERS:
            return self.plan.start(Role.STANDBY)
        return self.plan.start(start.role, port=start.port)

    def _task_failed(self, name: str, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(BatonError(f"{name} failed: {error}"))


def _is(instance: str, start: Start | Command) -> bool:
    return isinstance(start, Start) and start.id == instance and start.role in WORKERS


def _role(start: Start | Command) -> Role | None:
    return start.role if isinstance(start, Start) else None
