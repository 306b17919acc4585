"""The one life of every service: start, ready, drain, stop.

Owns signals, order, bounds and the exit status. Order: telemetry, Redis, NATS, lease, health server, then the service's
own `open` (engine first, subscriptions last); closing goes in reverse. The lease comes before the engine, so that a
second instance of the same id is refused before it loads a model, and nothing is ever sent without an epoch.
"""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar, runtime_checkable

from prometheus_client import Gauge
from redis.asyncio import Redis

from shared.command_line import CommandLine, identified
from shared.config import Config
from shared.control import Assignable, Control
from shared.errors import BatonError, ConfigError, DeadlineExceeded, LinkLost
from shared.failpoints import arm
from shared.health import HealthServer
from shared.instance import Instance, Load, new_id
from shared.messages import Role, State
from shared.nats_bus import NatsBus
from shared.redis_client import open_redis_client
from shared.reloading import Reloading
from shared.stopping import Stopping
from shared.tasks import AGAIN_S
from shared.telemetry import Telemetry, configure_logging

__all__ = ["Assignable", "Instance", "Load", "Prepared", "Service", "Stopping", "main", "run", "serve"]

T = TypeVar("T")
DONE, FAILED, USAGE = 0, 1, 2
TELEMETRY_S = 3.0
LINGER_S = 2.0
"""For threads to end after everything has stopped; then the process ends without them."""

log = logging.getLogger(__name__)


class Service(Protocol):
    """What a role does. Made without arguments; everything it needs comes with `open`."""

    @property
    def role(self) -> Role:
        """Fixed."""
        ...

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Load what is needed, subscribe last, and leave on `stack` how to undo it. May be cancelled at any point."""
        ...

    def load(self) -> Load:
        """Say what can be taken now. Called at each heartbeat, after `open` only."""
        ...

    async def drain(self, seconds: float) -> None:
        """Take nothing new, finish what is held, return when it is done or after so many seconds."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A service that has something to do before its loop runs."""

    def prepare(self, config: Config) -> None:
        """Do what holds the interpreter for seconds: importing torch, parsing a tokenizer.

        On the loop, or in a thread beside it, it would keep the lease from being renewed. Raises BatonError.
        """
        ...


def open_redis(config: Config) -> Redis:
    """Make the client for everything but leases: short timeouts, nothing repeated behind the caller's back."""
    return open_redis_client(config.redis.url, config.redis.timeout_s)


async def serve(service: Service, config: Config, stopping: Stopping, reloading: Reloading | None = None) -> int:
    """Live one life on the running loop, until `stopping` asks for its end. Returns the exit code."""
    stack = AsyncExitStack()
    reloading = reloading or Reloading(config)
    try:
        started = _start(service, config, stopping, reloading, stack)
        instance = await _unless(stopping.asked, started, config.fleet.stop_s)
        if instance is not None:
            log.info("ready", extra={"health": instance.health_url, "epoch": instance.epoch})
            await stopping.asked.wait()
            await _drain(service, instance, stopping)
    except BatonError as error:
        log.error("%s", error)  # noqa: TRY400  # one clear sentence, not a traceback
        stopping.ask(str(error), failed=True)
    except Exception as error:
        log.exception("the instance failed")
        stopping.ask(f"{type(error).__name__}: {error}", failed=True)
    finally:
        await _close(stack, stopping, config.fleet.stop_s)
    log.info("stopped", extra={"reason": stopping.reason, "failed": stopping.failed})
    return FAILED if stopping.failed else DONE


async def _start(
    service: Service, config: Config, stopping: Stopping, reloading: Reloading, stack: AsyncExitStack
) -> Instance:
    instance_id = config.instance.id or new_id(service.role)
    config = dataclasses.replace(config, instance=dataclasses.replace(config.instance, id=instance_id))
    telemetry = Telemetry(service.role, instance_id)
    stack.push_async_callback(_close_telemetry, telemetry)
    redis = open_redis(config)
    stack.push_async_callback(redis.aclose)
    bus = await NatsBus.open(config.nats, service=service.role, on_closed=lambda why: stopping.ask(why, failed=True))
    stack.push_async_callback(bus.close)
    reloading.config = config
    instance = Instance(service.role, reloading, bus=bus, redis=redis, telemetry=telemetry, stopping=stopping)
    stack.push_async_callback(instance.discharge)
    telemetry.expose("baton_bus", bus.stats)
    telemetry.expose("baton_instance", instance.stats)
    loop = asyncio.get_running_loop()
    tasks = Gauge("baton_instance_tasks", "tasks on the event loop", registry=telemetry.registry)
    tasks.set_function(lambda: len(asyncio.all_tasks(loop)))  # a scrape may come from another thread
    health = HealthServer(telemetry, instance.why_not_ready)
    stack.push_async_callback(health.close)
    settings = config.instance
    try:
        instance.health_url = await health.open(settings.health_host, settings.health_port)
    except OSError as error:
        where = f"{settings.health_host}:{settings.health_port}"
        raise LinkLost(f"cannot listen on {where} for health checks: {error.strerror}") from error
    await instance.enlist(config.nats.connect_timeout_s)
    await service.open(instance, stack)
    instance.load = service.load
    control = await bus.subscribe(instance.subjects.control(instance.id), Control(service, instance, stopping).handle)
    stack.push_async_callback(control.stop)
    try:
        await bus.flush(config.nats.connect_timeout_s)  # ready means: the server knows all our subscriptions
    except (DeadlineExceeded, LinkLost) as error:
        log.warning("ready without NATS; the client subscribes when it is back", extra={"error": str(error)})
    await instance.enter(State.READY)
    _ = instance.vital.spawn(reloading.run(), name="reload")
    return instance


async def _close_telemetry(telemetry: Telemetry) -> None:
    """Send the last spans, unless their collector does not take them: that must not hold up the end."""
    try:
        async with asyncio.timeout(TELEMETRY_S):
            await asyncio.to_thread(telemetry.close)
    except TimeoutError:
        log.warning("the last spans were not sent")


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, T], bound_s: float) -> T | None:
    """Do the work, but cancel it when the event comes first; None then. Waits for its end within the bound."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await _cancel(task, bound_s)
            return None
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def _cancel(task: "asyncio.Future[T]", bound_s: float) -> None:
    """Cancel, again and again, since a library may swallow it (see Tasks.close), until it ends or the bound is over."""
    give_up = time.monotonic() + bound_s
    while not task.done() and time.monotonic() < give_up:
        task.cancel()
        await asyncio.wait({task}, timeout=min(AGAIN_S, bound_s))


async def _drain(service: Service, instance: Instance, stopping: Stopping) -> None:
    if stopping.at_once.is_set():
        return
    seconds = instance.config.fleet.drain_s if stopping.drain_s is None else stopping.drain_s
    await instance.enter(State.DRAINING)

    async def bounded() -> None:
        async with asyncio.timeout(seconds + 1.0):  # the service keeps to its seconds; this is for one that does not
            await service.drain(seconds)

    try:
        await _unless(stopping.at_once, bounded(), 1.0)
    except TimeoutError:
        log.error("the drain did not end in its time")  # noqa: TRY400
        stopping.failed = True


async def _close(stack: AsyncExitStack, stopping: Stopping, bound_s: float) -> None:
    try:
        async with asyncio.timeout(bound_s):
            await stack.aclose()
    except TimeoutError:
        log.error("stopping took longer than %g s", bound_s)  # noqa: TRY400
        stopping.ask("stopping took too long", failed=True)
    except Exception:
        log.exception("stopping failed")
        stopping.ask("stopping failed", failed=True)


def run(service: Service, config: Config, read: Callable[[], Config] | None = None) -> int:
    """Live one life in this process, with its signals. Returns the exit code: 0 stopped in order, 1 failed.

    `read` gives the configuration as it stands now, for reloads.
    """

    async def live() -> int:
        stopping = Stopping()
        stopping.when_asked = lambda: _last_resort(config, stopping)
        loop = asyncio.get_running_loop()
        for caught in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(caught, stopping.signalled, caught.name)
        reloading = Reloading(config, read)
        loop.add_signal_handler(signal.SIGHUP, reloading.ask)
        return await serve(service, config, stopping, reloading)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(live())
        _exit_after(LINGER_S, code)  # a thread that computes for minutes must not hold up what has stopped in order
    return code


def _last_resort(config: Config, stopping: Stopping) -> None:
    """Bound the whole stop, even if the loop blocks while it stops."""
    drain_s = config.fleet.drain_s if stopping.drain_s is None else stopping.drain_s
    _exit_after(drain_s + 2 * config.fleet.stop_s + LINGER_S, FAILED)


def _exit_after(seconds: float, code: int) -> None:
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # optional: not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def main(make: Callable[[], Service], arguments: Sequence[str] | None = None) -> int:
    """Run a service as `python -m services.X --config FILE [--id ID] [--scenario S] [--group G]`; the exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop hears it: a reload during the start is none
    try:
        command = CommandLine(make.__name__.lower(), arguments)
        service = make()
        config = identified(command.read(), service.role)
        configure_logging(config.telemetry, service.role, config.instance.id)
        arm(os.environ)
        if isinstance(service, Prepared):
            service.prepare(config)
    except BatonError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE if isinstance(error, ConfigError) else FAILED
    return run(service, config, command.read)
