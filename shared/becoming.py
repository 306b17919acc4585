"""What an instance may become by order: a prefill, a decode or a standby, as the same process with the same id.

Owns the judgement of such an order, and the command and environment of what it becomes. Leaving the old role is the
lifecycle's business: the order only asks for the end, and the exec comes after everything has closed.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

from shared.command_line import CommandLine
from shared.config import Config, load
from shared.config.groups import in_group
from shared.config.reader import variable
from shared.config.writer import written
from shared.errors import BadRequest, ConfigError, Draining, UnknownScenario
from shared.instance import WORKERS, Instance
from shared.lifecycle import Service, main
from shared.messages import AssignRole, Role, State
from shared.stopping import checked_drain

ROLES: Final = (*WORKERS, Role.STANDBY)
"""What may be become, and by whom."""
ORIGINALS: Final = "BATON_ORIGINALS"
"""Names the variable that keeps what the variables we set were before; the configuration reads no such name."""
STDERR: Final = 2
_OPTION: Final = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
"""Options whose names survive as a part of a variable's name."""


def command(order: AssignRole, instance: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of what an instance becomes; of its own arguments, the configuration's file stays."""
    path = CommandLine(order.role.value, arguments).path
    place = [] if order.role is Role.STANDBY else ["--scenario", order.scenario, "--group", order.group]
    file = [] if path is None else ["--config", str(path)]
    return [sys.executable, "-m", f"services.{order.role.value}", *file, "--id", instance, *place]


def environment(order: AssignRole, instance: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of what an instance becomes: its place and revision, over what was there at first.

    What an earlier order set is taken back. The credentials of all that it may become later stay; no others do.
    Raises BadRequest when the revision's options cannot be said in variables.
    """
    kept: dict[str, str | None] = json.loads(environ.get(ORIGINALS, "{}"))
    plain = {name: text for name, text in environ.items() if name not in kept and name != ORIGINALS}
    plain |= {name: text for name, text in kept.items() if text is not None}
    ours = {variable(key): text for key, text in _keys(order, instance)}
    originals = json.dumps({name: plain.get(name) for name in ours})
    others = tuple(variable(f"nats.credentials.{role.value}.") for role in Role if role not in ROLES)
    found = {**plain, **ours, ORIGINALS: originals}
    return {name: text for name, text in found.items() if not name.startswith(others)}


def _keys(order: AssignRole, instance: str) -> Iterator[tuple[str, str]]:
    """Name what an order decides, as keys of the configuration."""
    working, revision = order.role in WORKERS, order.revision
    yield "instance.id", instance
    yield "instance.scenario", order.scenario if working else ""
    yield "instance.group", order.group if working else ""
    yield "instance.revision", str(revision.number if working else 0)
    if not working:
        return
    if revision.model:
        yield f"scenario.{order.scenario}.model", revision.model
    for name, value in revision.options.items():
        if not _OPTION.fullmatch(name):
            raise BadRequest(f"the engine option {name!r} cannot be given by a revision; its name is not lower_case")
        try:
            yield f"scenario.{order.scenario}.engine_options.{name}", written(value)
        except ValueError as error:
            raise BadRequest(f"the engine option {name} cannot be given by a revision: {error}") from error


class Becoming:
    """One instance's readiness to become something else. `order` is set once one was accepted; that is for good."""

    def __init__(self, arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._arguments = sys.argv[1:] if arguments is None else arguments
        self._environ = os.environ if environ is None else environ
        self._turn = asyncio.Lock()
        self.order: AssignRole | None = None
        self.id = ""  # of the instance, kept by what it becomes
        self._instance: Instance | None = None

    async def accept(self, instance: Instance, order: AssignRole) -> None:
        """Accept an order and ask for the end of what the instance is now. Raises BatonError to refuse it.

        Repeated, it is accepted again: the first answer may have been lost.
        """
        async with self._turn:
            if self.order == order:
                return
            self._still_here(instance)
            if instance.already(order):
                return
            await asyncio.to_thread(self._judge, instance.config, order, instance.id)
            self._still_here(instance)
            self.order, self.id, self._instance = order, instance.id, instance
            reason = f"becomes {order.role.value}" + (f" of {order.scenario}" if order.role in WORKERS else "")
            # Later, so that the answer goes out first.
            asyncio.get_running_loop().call_soon(instance.leave, reason, order.seconds)

    @property
    def due(self) -> bool:
        """Whether, now that everything has closed, the process goes on as something else."""
        return self._instance is not None and self._instance.passing

    def _still_here(self, instance: Instance) -> None:
        if instance.state is not State.READY or self.order is not None:
            raise Draining(f"{instance.id} is leaving or has another role already")

    def _judge(self, config: Config, order: AssignRole, instance: str) -> None:
        """Raise what is wrong with an order, rather than die of it as something else. Blocks: it reads files."""
        if order.role not in ROLES:
            raise BadRequest(f"{instance} cannot become a {order.role.value}", "role")
        checked_drain(order.seconds)
        if order.role in WORKERS and order.scenario not in config.scenarios:
            known = ", ".join(sorted(config.scenarios)) or "none"
            raise UnknownScenario(f"{instance} is configured for {known}, not for {order.scenario!r}")
        if config.nats.credentials and order.role.value not in config.nats.credentials:
            name = f"nats.credentials.{order.role.value}"
            raise BadRequest(f"{instance} cannot sign in to NATS as a {order.role.value}; give it {name}", "role")
        environ = environment(order, instance, self._environ)
        try:
            _check_model(load(CommandLine("becoming", self._arguments).path, environ))
        except ConfigError as error:
            raise BadRequest(f"{instance} could not start as that: {'; '.join(error.faults)}") from error

    def exec(self) -> int:
        """Become what was accepted; this process goes on as that. Returns only where the exec is a test's."""
        if self.order is None:
            raise RuntimeError("there is nothing to become")
        argv = command(self.order, self.id, self._arguments)
        _leave_open_no_more_than_the_standard_streams()
        sys.stdout.flush()
        sys.stderr.flush()
        return os.execve(argv[0], argv, environment(self.order, self.id, self._environ))  # noqa: S606  our own program


def _check_model(config: Config) -> None:
    """Raise ConfigError when the model of this instance's scenario is not there, or its options are none."""
    from shared.engine.torch_engine.options import read_options  # noqa: PLC0415  imports no torch
    from shared.models.known import KNOWN, imported  # noqa: PLC0415  a standby that gets no order needs none of it
    from shared.models.resolving import resolve  # noqa: PLC0415

    if not config.instance.scenario:
        return
    settings = in_group(config.scenarios[config.instance.scenario], config.instance.group)
    if settings.engine == "torch":
        read_options(settings.engine_options)
    if settings.model in KNOWN and imported(settings.model) is None:
        return  # it is imported at the start, which may take a minute
    resolve(settings.model, settings.engine, settings.engine_options)


def _leave_open_no_more_than_the_standard_streams() -> None:
    """Close everything at the exec: a device that stayed open would keep its memory."""
    for entry in Path("/proc/self/fd").glob("*"):
        number = int(entry.name)
        if number > STDERR:
            with suppress(OSError):  # the one that lists the folder
                os.set_inheritable(number, False)


class Transient(Service, Protocol):
    """A service that may become another."""

    becoming: Becoming


S = TypeVar("S", bound=Transient)


def live(make: Callable[[], S]) -> int:
    """Run a service; when it was given another role and has closed in order, become that. The exit code otherwise."""
    service = make()

    def made() -> S:
        return service

    made.__name__ = getattr(make, "__name__", "service")
    status = main(made)
    return service.becoming.exec() if status == 0 and service.becoming.due else status
