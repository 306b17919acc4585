"""Opens what a worker stands on, in the order in which it can fail: model, memory, voice, peers.

Owns nothing afterwards: everything closes with the stack, in reverse.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from shared.config import Config
from shared.config.groups import in_group
from shared.engine import Engine, OnDevice, Staged
from shared.engine.opening import open_engine
from shared.errors import ConfigError, LeaseLost
from shared.instance import Instance
from shared.kv import shm
from shared.kv.arena import Arena
from shared.messages import Health, Role, State
from shared.models import resolve
from shared.models.spec import ModelSpec
from shared.policy.placement import FleetView, ViewRules
from shared.text import Tokenizer, open_text, open_tokenizer
from shared.worker.announcer import Announcer
from shared.worker.frames import FrameSender
from shared.worker.metrics import WorkerMetrics
from shared.worker.peers import Peers
from shared.worker.standing import Standing

MIB = 1 << 20
TOUCHED_BYTES = 64 * MIB
"""Of staging, brought into being at start: the first pushes would pay for it otherwise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What takes the interpreter seconds to make: imports and a parsed tokenizer. The engine is not started."""

    spec: ModelSpec
    tokenizer: Tokenizer
    engine: Engine


def open_model(config: Config, role: Role) -> Model:
    """Make the model of this instance's scenario, as its group wants it. Raises ConfigError."""
    name = config.instance.scenario
    settings = config.scenarios.get(name)
    if settings is None:
        raise ConfigError([f"there is no scenario {name!r} to serve; write [scenario.{name}] or choose another"])
    settings = in_group(settings, config.instance.group)
    spec = resolve(settings.model, settings.engine, settings.engine_options)
    tokenizer = open_tokenizer(spec)
    return Model(spec, tokenizer, open_engine(settings, spec, tokenizer, role=role))


async def open_standing(instance: Instance, model: Model, stack: AsyncExitStack) -> Standing:
    """Start the engine and gather the rest. Raises EngineFailed."""
    spec, tokenizer, engine = model.spec, model.tokenizer, model.engine
    arena = Arena(instance.config.kv.staging_mb * MIB, shared=isinstance(engine, Staged))
    stack.callback(arena.close)
    stack.push_async_callback(engine.close)
    if isinstance(engine, Staged):
        engine.stage(arena)
    await engine.start()
    device_mb = instance.config.kv.device_staging_mb
    if device_mb and isinstance(engine, OnDevice):
        await engine.stage_on_device(arena, device_mb * MIB)
    await asyncio.to_thread(arena.touch, TOUCHED_BYTES)
    metrics = WorkerMetrics(instance.telemetry.registry)
    fleet = instance.config.fleet
    view = FleetView(ViewRules(heartbeat_s=fleet.heartbeat_s, misses=fleet.heartbeat_misses), watcher=instance.id)
    peers = Peers(instance.scenario, instance.group, metrics, view)
    await peers.recall(instance.redis)
    log.info("engine ready", extra={"model": engine.info.model, "blocks": engine.info.blocks})
    return Standing(
        name=instance.id,
        scenario=instance.scenario,
        host=shm.here(),
        bus=instance.bus,
        subjects=instance.subjects,
        tasks=instance.tasks,
        fleet=fleet,
        engine=engine,
        pieces=tokenizer,
        open_text=lambda request, generated: open_text(spec, tokenizer, request.stopping, generated),
        arena=arena,
        metrics=metrics,
        tracer=instance.telemetry.tracer,
        sender=FrameSender(
            instance.bus, instance.subjects, instance.id, lambda: instance.epoch, patience_s=fleet.progress_s
        ),
        peers=peers,
        epoch=lambda: instance.epoch,
        unready=lambda: why_unready(instance),
        freed=Announcer(instance),
    )


def why_unready(instance: Instance) -> str:
    """Say why this instance takes no offer now; nothing when it does."""
    if instance.state is not State.READY:
        return instance.state.value
    if instance.health is Health.FAILED:
        return f"its device has failed: {instance.ailment}"
    return "cut off from the fleet" if instance.cut_off else ""


def taken_over(instance: Instance) -> LeaseLost:
    """Make the error that attempts end with when others have taken over from us: the next attempt is elsewhere."""
    error = LeaseLost(f"others have taken over from {instance.id}")
    error.retryable = True
    return error
