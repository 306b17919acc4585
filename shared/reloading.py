"""The configuration read again while an instance runs: on SIGHUP, or by order.

Owns what is in force and which keys may change without a restart. Whoever can take a change in its stride says so with
`add`; a change is prepared by all of them first and takes effect only when none refused, so a faulty file changes
nothing anywhere.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shared.config import Config
from shared.errors import BadRequest, BatonError, ConfigError, DeadlineExceeded

Apply = Callable[[], None]
Prepare = Callable[[Config], Awaitable[Apply]]
"""Builds what a new configuration needs, and returns what puts it in force. Raises BatonError to refuse; the second
step may not fail. Called with the whole configuration as it would be, whether its own keys changed or not, so that
files which the keys name are read again."""

PREPARE_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    keys: tuple[str, ...]  # `section.key`, or `section` for all of it
    prepare: Prepare


class Reloading:
    """Of one instance. `config` is what is in force."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        self.config = config
        self._read = read
        self._parts: list[_Part] = []
        self._asked = asyncio.Event()
        self._turn = asyncio.Lock()
        self.add(_prepare_common, "telemetry.log_level", "fleet.drain_s")

    def add(self, prepare: Prepare, *keys: str) -> None:
        """Have `prepare` called at each reload; it takes changes of `keys` while the instance runs."""
        self._parts.append(_Part(keys, prepare))

    def ask(self) -> None:
        """Ask for a reload, as a signal does; `run` performs it."""
        log.info("asked to read the configuration again")
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever asked. A refusal is logged, and what was in force stays so."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.reload()
            except BatonError as error:
                log.error("the configuration is refused, nothing has changed: %s", error)  # noqa: TRY400

    async def reload(self) -> list[str]:
        """Read the configuration and put it in force. Returns the changed keys that wait for a restart.

        Raises BatonError, most often ConfigError, when it is refused; then nothing has changed.
        """
        if self._read is None:
            raise BadRequest("this instance was not started from a configuration that can be read again")
        async with self._turn:
            fresh = await asyncio.to_thread(self._read)
            changed = list(_changes(self.config, fresh))
            taken = [key for key in changed if self._takes(key)]
            late = [key for key in changed if key not in taken]
            config = _with(self.config, fresh, taken)
            for apply in [await self._prepared(part, config) for part in self._parts]:
                apply()
            self.config = config
        log.info("the configuration has been read again", extra={"changed": ", ".join(taken) or "nothing"})
        if late:
            log.warning("these keys change at the next start: %s", ", ".join(late))
        return late

    async def _prepared(self, part: _Part, config: Config) -> Apply:
        try:
            async with asyncio.timeout(PREPARE_S):
                return await part.prepare(config)
        except BatonError:
            raise
        except TimeoutError:
            raise DeadlineExceeded(f"{', '.join(part.keys)} could not be prepared in {PREPARE_S:g} s") from None
        except Exception as error:
            log.exception("a part failed to prepare for the new configuration", extra={"keys": part.keys})
            raise ConfigError([f"{', '.join(part.keys)}: {error}"]) from error

    def _takes(self, key: str) -> bool:
        section = key.partition(".")[0]
        return any(key in part.keys or section in part.keys for part in self._parts)


async def _prepare_common(config: Config) -> Apply:
    """Take the keys that every role can change while it runs; `fleet.drain_s` is read when it is needed."""
    return lambda: logging.getLogger().setLevel(config.telemetry.log_level.upper())


def _changes(old: Config, new: Config) -> Iterator[str]:
    """Name what differs, `section.key`; a scenario counts as one key. Who this instance is does not change."""
    for section in dataclasses.fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if section.name == "instance":
            after = dataclasses.replace(after, id=before.id, scenario=before.scenario, group=before.group)
        names = sorted({*before, *after}) if isinstance(before, dict) else [f.name for f in dataclasses.fields(before)]
        for name in names:
            if _value(before, name) != _value(after, name):
                yield f"{section.name}.{name}"


def _value(section: Any, name: str) -> Any:  # noqa: ANN401  a settings class, or scenarios by name
    return section.get(name) if isinstance(section, dict) else getattr(section, name)


def _with(old: Config, new: Config, keys: list[str]) -> Config:
    """Copy `old` with the values that `new` has for some keys."""
    for key in keys:
        section, _, name = key.partition(".")
        before, after = getattr(old, section), getattr(new, section)
        if isinstance(before, dict):
            merged: Any = {n: v for n, v in {**before, name: after.get(name)}.items() if v is not None}
        else:
            merged = dataclasses.replace(before, **{name: getattr(after, name)})
        old = dataclasses.replace(old, **{section: merged})
    return old
