"""The provisioner of a Docker engine: containers like the standby of the monitor's own compose project.

What it made it knows by a label, and touches nothing else. Whoever may speak to the engine is root on its machine; see
docs/deployment.md.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import socket
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from services.monitor.provisioners import ARRIVE_S, check_options
from services.monitor.provisioners.containers import Wanted, creation, read_env_file
from shared.config import MonitorSettings
from shared.errors import ConfigError, LinkLost, Overloaded, Unavailable

try:
    import aiodocker
    from aiodocker.containers import DockerContainer
    from aiohttp import ClientError
except ImportError as error:  # pragma: no cover  # of an installation without the extra
    raise ConfigError(["monitor.provisioner = docker needs the extra: pip install 'baton[docker]'"]) from error

OPTIONS: Final = {"host", "cluster", "project", "service", "image", "network", "env_file", "command"}
MADE: Final = "baton.provisioned"
INSTANCE: Final = "baton.instance"
PROJECT: Final = "com.docker.compose.project"
SERVICE: Final = "com.docker.compose.service"
ONE_OFF: Final = "com.docker.compose.oneoff"
CALL_S: Final = 10.0
STOP_S: Final = 15
"""For a container that was asked to stop; a released instance has drained before."""
LIVING: Final = {"running", "restarting", "paused"}
GONE: Final = {404, 409}
"""Not there; being removed already."""
NOT_CONNECTED: Final = 900
"""What the library calls the status where there is no engine."""


class DockerProvisioner:
    """Containers of one engine. See Provisioner."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._options = check_options(settings, OPTIONS)
        self._most = settings.most_instances
        self._docker: aiodocker.Docker | None = None
        self._project = self._options.get("project", "")
        self._cluster = self._options.get("cluster", "")
        self._command = shlex.split(self._options.get("command", ""))
        self._environ = read_env_file(Path(self._options["env_file"])) if self._options.get("env_file") else {}

    async def open(self) -> None:
        """Find the engine, and our own compose project unless one is named."""
        docker = self._engine()
        async with _asking("version"):
            await docker.version()
        if not self._project:
            self._project = await self._own_project(docker)
        self._cluster = self._cluster or self._project or "baton"
        await self._wanted(docker)  # or say now what is missing

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        """Start containers; see Provisioner. What ended, or was never started, is removed."""
        docker = self._engine()
        running = await self._tidied(docker)
        now = time.time()
        coming = [name for name, made in running.items() if name not in seen and now - made < ARRIVE_S]
        short = missing - len(coming)
        number = max(0, min(short, self._most - len(running)))
        started = [await self._start(docker, wanted) for wanted in [await self._wanted(docker)] * number]
        if short > number:
            raise Overloaded(
                f"{short - number} more instances are needed, but monitor.most_instances is {self._most}", reason="most"
            )
        return started

    async def release(self, instance: str) -> None:
        """Stop and remove a container of ours; see Provisioner."""
        docker = self._engine()
        for one in await self._found(docker, {MADE: self._cluster, INSTANCE: instance}):
            async with _asking("stop", STOP_S + CALL_S), _unless_gone():
                await one.stop(t=STOP_S)
            await _remove(one)

    async def close(self) -> None:
        """Hang up."""
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    def _engine(self) -> aiodocker.Docker:
        if self._docker is None:
            host = self._options.get("host") or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
            try:
                self._docker = aiodocker.Docker(host)
            except (ValueError, AssertionError) as error:
                raise ConfigError([f"monitor.provisioner_options, of docker: host {host!r}: {error}"]) from error
        return self._docker

    async def _own_project(self, docker: aiodocker.Docker) -> str:
        """Return the compose project of this container; empty outside of one."""
        own: dict[str, Any] = {}
        async with _asking("inspect"), _unless_gone():
            own = await docker.containers.container(socket.gethostname()).show()
        return str((own.get("Config", {}).get("Labels") or {}).get(PROJECT, ""))

    async def _wanted(self, docker: aiodocker.Docker) -> Wanted:
        """Say what a new container is to be: like the project's standby, with what the options say instead."""
        service = self._options.get("service", "standby")
        wanted = Wanted(
            {MADE: self._cluster},
            self._environ,
            self._options.get("image", ""),
            self._options.get("network", ""),
            self._command,
        )
        if self._project:
            like = {PROJECT: self._project, SERVICE: service}
            found = await self._found(docker, like)
            if found:
                async with _asking("inspect"):
                    first = min(found, key=lambda one: (MADE in one["Labels"], one["Created"]))
                    wanted.like = await first.show()
                # `docker compose down` removes what bears these, and `up` leaves it alone
                wanted.labels |= {**like, ONE_OFF: "True"}
        if wanted.like is None and not (wanted.image and wanted.environ):
            what = f"compose project {self._project!r} has no service {service!r}" if self._project else "no project"
            way = "give project and service, or image and env_file"
            raise ConfigError([f"monitor.provisioner_options, of docker: {what} to copy; {way}"])
        return wanted

    async def _start(self, docker: aiodocker.Docker, wanted: Wanted) -> str:
        instance = f"standby-{secrets.token_hex(5)}"
        config = creation(wanted, {INSTANCE: instance}, {"BATON_INSTANCE__ID": instance})
        async with _asking("create"):
            made = await docker.containers.create(config, name=f"{self._cluster}-{instance}")
        try:
            async with _asking("start"):
                await made.start()
        except (Unavailable, LinkLost):
            with contextlib.suppress(Unavailable, LinkLost):  # else the next `want` removes it
                await _remove(made)
            raise
        return instance

    async def _tidied(self, docker: aiodocker.Docker) -> dict[str, float]:
        """Remove our containers that do not run; return when each of the others was made."""
        running: dict[str, float] = {}
        for one in await self._found(docker, {MADE: self._cluster}):
            if one["State"] in LIVING:
                running[one["Labels"].get(INSTANCE, one["Id"])] = float(one["Created"])
            else:
                await _remove(one)
        return running

    async def _found(self, docker: aiodocker.Docker, labels: dict[str, str]) -> list[DockerContainer]:
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        async with _asking("list"):
            found = await docker.containers.list(all="true", filters=json.dumps(filters))
        # what an engine returned beyond the filters must not be touched
        return [one for one in found if labels.items() <= (one["Labels"] or {}).items()]


async def _remove(container: DockerContainer) -> None:
    async with _asking("remove"), _unless_gone():
        await container.delete(force=True, v=True)  # with the volumes that have no name


@asynccontextmanager
async def _unless_gone() -> AsyncIterator[None]:
    """Pass over what is not there, or just being removed."""
    try:
        yield
    except aiodocker.DockerError as error:
        if error.status not in GONE:
            raise


@asynccontextmanager
async def _asking(what: str, seconds: float = CALL_S) -> AsyncIterator[None]:
    """Bound one call, and say in our words how it failed."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except aiodocker.DockerError as error:
        if error.status == NOT_CONNECTED:
            raise LinkLost(f"the Docker engine does not answer: {error.message}") from error
        raise Unavailable(f"the Docker engine refused to {what} a container: {error.message}") from error
    except (ClientError, OSError, TimeoutError) as error:
        raise LinkLost(f"the Docker engine did not {what} within {seconds:g} s: {error!r}") from error
