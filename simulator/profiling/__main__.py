"""`python -m simulator.profiling`: what `baton profile` runs, in a process of its own, since it may load torch.

Starts the engine of a scenario as a worker does, measures it, and writes its profile.
"""

import argparse
import asyncio
import os
import platform
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shared.config import Config, ScenarioSettings, load
from shared.engine import Engine, Staged
from shared.engine.opening import open_engine
from shared.errors import BatonError, ConfigError
from shared.kv.arena import Arena
from shared.models.resolving import resolve
from shared.text import open_tokenizer
from simulator.engine.kept import write_profile
from simulator.profiling.arguments import add
from simulator.profiling.fitting import Named, Point, kept, profile_of
from simulator.profiling.measuring import Measured, Measuring

MIB: Final = 1 << 20
USAGE: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write. 0 done, 1 failed, 2 wrong words."""
    options = _parser().parse_args(arguments)
    try:
        config = load(options.config, os.environ)
        settings = _settings(config, options)
        return asyncio.run(_profile(config, settings, options))
    except ConfigError as error:
        sys.stderr.write(f"baton: {error}\n")
        return USAGE
    except (BatonError, ValueError) as error:
        sys.stderr.write(f"baton: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="baton profile", description="Measure an engine for the simulator.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; BATON_SECTION__KEY variables win over it")
    add(parser)
    return parser


def _settings(config: Config, options: argparse.Namespace) -> ScenarioSettings:
    scenarios = config.scenarios
    name = options.scenario or next(iter(scenarios), None)
    if name is not None and name not in scenarios:
        raise ConfigError([f"there is no scenario {name!r}; there are: {', '.join(scenarios) or 'none'}"])
    settings = scenarios[name] if name is not None else ScenarioSettings(model=options.model or "gemma-3-270m")
    asked = {"engine": options.engine, "model": options.model}
    return replace(settings, **{key: value for key, value in asked.items() if value is not None})


async def _profile(config: Config, settings: ScenarioSettings, options: argparse.Namespace) -> int:
    spec = resolve(settings.model, settings.engine, settings.engine_options)
    engine = open_engine(settings, spec, open_tokenizer(spec))
    async with AsyncExitStack() as stack:
        arena = Arena(config.kv.staging_mb * MIB, shared=isinstance(engine, Staged))
        stack.callback(arena.close)
        stack.push_async_callback(engine.close)
        measured, load_s = await _measured(engine, arena, options.seconds)
        named = Named(
            name=options.name or spec.name,
            devices=options.devices,
            price=options.price,
            load_s=load_s,
            source=f"baton profile, engine {settings.engine}, {platform.machine()} with {os.cpu_count()} cores",
        )
        profile, points = profile_of(engine.info, measured, named)
    print(_table(points))
    told = {**kept(points, measured.rounds), "date": datetime.now(tz=UTC).date().isoformat(), **_place(settings)}
    path = options.out or Path(f"{profile.name}.json")
    write_profile(path, profile, told)
    print(f"\n{profile.timing}\nprompts at once: {profile.prefill_at_once or 'any number'}; loads in {load_s:.1f} s")
    print(f"written to {path}")
    return 0


async def _measured(engine: Engine, arena: Arena, seconds: float) -> tuple[Measured, float]:
    """Start the engine and measure; how long it took to load."""
    if isinstance(engine, Staged):
        engine.stage(arena)
    began = time.perf_counter()
    await engine.start()
    load_s = time.perf_counter() - began
    print(f"{engine.info.model} is ready after {load_s:.1f} s; measuring for {seconds:.0f} s or one round", flush=True)
    return await Measuring(engine, arena).run(seconds), load_s


def _place(settings: ScenarioSettings) -> dict[str, Any]:
    return {"python": platform.python_version(), "engine": settings.engine, "options": settings.engine_options}


def _table(points: list[Point]) -> str:
    width = max(len(point.what) for point in points)
    rows = [f"{'':{width}}  {'measured ms':>12}  {'fitted ms':>10}  {'off':>6}"]
    rows += [f"{p.what:{width}}  {1000 * p.measured:12.3f}  {1000 * p.fitted:10.3f}  {p.off:+6.1%}" for p in points]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
