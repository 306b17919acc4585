"""compose.yaml: its passwords, its accord with the permissions, and, where a Docker engine runs, the cluster itself."""

import json
import os
import re
import shutil
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local.permissions import password_variable, users
from services.local.probes import free_port

REPOSITORY = Path(__file__).parents[2]
SECRETS = REPOSITORY / "deploy" / "docker" / "secrets.sh"
COMPOSE = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")


def _secrets(path: Path) -> dict[str, str]:
    subprocess.run([SECRETS, path], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())


def test_secrets_cover_what_compose_asks_for_and_are_made_once(tmp_path: Path) -> None:
    made = _secrets(tmp_path / "env")
    asked = set(re.findall(r"\$\{(BATON_\w+):\?", COMPOSE))
    assert set(made) == asked
    assert {password_variable(user.name) for user in users()} < set(made)
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"p[0-9a-f]{48}", secret) for secret in made.values())
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600
    assert _secrets(tmp_path / "env") == made


def test_compose_publishes_one_port_and_only_on_loopback() -> None:
    published = re.findall(r"^ +ports: (.*)$", COMPOSE, re.MULTILINE)
    assert published == ['["127.0.0.1:${BATON_PORT:-8000}:8000"]']


class Compose:
    """One project of its own; COMPOSE_FILE may add files of the machine's own, such as one for the build's network."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        _secrets(folder / "env")
        found = shutil.which("docker-compose")
        self._argv = [found] if found else ["docker", "compose"]
        self._argv += ["--env-file", str(folder / "env"), "--project-name", "baton-test"]
        self._environ = {**os.environ, "BATON_PORT": str(self.port)}

    def run(self, *arguments: str) -> str:
        """Run one command; its output. Fails the test when the command fails."""
        done = subprocess.run(
            [*self._argv, *arguments], cwd=REPOSITORY, env=self._environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def status(self) -> list[dict[str, Any]]:
        """What `baton status` says inside."""
        report = json.loads(self.run("exec", "-T", "monitor", "baton", "status", "--json"))
        instances: list[dict[str, Any]] = report["instances"]
        return instances

    def until(self, role: str, seconds: float = 300.0, *, besides: str = "") -> dict[str, Any]:
        """Wait until an instance of the role is ready."""
        deadline = time.monotonic() + seconds
        while True:
            for one in self.status():
                if (one["role"], one["state"]) == (role, "ready") and one["id"] != besides:
                    return one
            assert time.monotonic() < deadline, f"no {role} is ready within {seconds} s: {self.status()}"
            time.sleep(1)

    def chat(self) -> str:
        """One answer."""
        turns = [{"role": "user", "content": "Why is the sky blue?"}]
        body = {"model": "chat", "max_tokens": 24, "temperature": 0, "messages": turns}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            content: str = json.load(answer)["choices"][0]["message"]["content"]
        return content


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no Docker engine runs here")
    made = Compose(tmp_path)
    yield made
    made.run("down", "--volumes", "--timeout", "20")


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_compose_serves_and_survives_the_loss_of_its_decode_container(compose: Compose) -> None:
    compose.run("up", "--build", "--detach")
    for role in ("prefill", "gateway", "standby"):
        compose.until(role)
    lost = compose.until("decode")
    before = compose.chat()
    container = compose.run("ps", "-q", "decode").strip()
    subprocess.run(["docker", "kill", container], check=True, capture_output=True)
    assert compose.chat() == before
    compose.until("decode", besides=lost["id"])
    assert [one["state"] for one in compose.status() if one["id"] == lost["id"]] == ["failed"]
