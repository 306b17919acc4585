"""The provisioner of a real Docker engine: copies of a project's standby come and go, and nothing else is touched."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.monitor.provisioners import make
from services.monitor.provisioners.docker import DockerProvisioner
from shared.config import MonitorSettings

REPOSITORY = Path(__file__).parents[2]
IMAGE = "python:3.11-slim"
"""What our own image is built on, so it is there or can be had wherever that can."""
WAIT = ["python", "-c", "import signal; signal.signal(15, lambda *_: exit(0)); signal.pause()"]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def project() -> Iterator[str]:
    """A standby and its network, as compose would make them, and a bystander."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no Docker engine runs here")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        docker("pull", IMAGE)
    name = f"baton-test-{secrets.token_hex(3)}"
    docker("network", "create", f"{name}_default")
    labels = [f"--label=com.docker.compose.{key}={value}" for key, value in (("project", name), ("service", "standby"))]
    locked = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--restart=unless-stopped", f"--network={name}_default"]
    docker("run", "--detach", f"--name={name}-standby-1", "--env=A=1", *labels, *locked, IMAGE, *WAIT)
    docker("run", "--detach", f"--name={name}-other", f"--label=baton.provisioned={name}-not", *locked, IMAGE, *WAIT)
    yield name
    left = docker("ps", "--all", "--quiet", f"--filter=name={name}").split()
    docker("rm", "--force", "--volumes", *left)
    docker("network", "rm", f"{name}_default")


def containers(project: str) -> dict[str, Any]:
    """Inspect each, by what follows the project in its name."""
    names = docker("ps", "--all", "--format={{.Names}}", f"--filter=name={project}").split()
    return {one["Name"].removeprefix(f"/{project}-"): one for one in json.loads(docker("inspect", *names))}


@pytest.mark.docker
async def test_copies_of_the_standby_come_and_go(project: str) -> None:
    settings = MonitorSettings(provisioner="docker", provisioner_options={"project": project})
    provisioner = make(settings)
    assert isinstance(provisioner, DockerProvisioner)
    await provisioner.open()
    first, second = await provisioner.want(2, [])
    found = containers(project)
    assert set(found) == {"standby-1", "other", first, second}
    copy, like = found[first], found["standby-1"]
    assert f"BATON_INSTANCE__ID={first}" in copy["Config"]["Env"]
    assert set(like["Config"]["Env"]) < set(copy["Config"]["Env"])
    assert copy["Config"]["Cmd"] == WAIT
    for name in ("ReadonlyRootfs", "CapDrop", "Tmpfs", "NetworkMode"):
        assert copy["HostConfig"][name] == like["HostConfig"][name]
    assert set(copy["NetworkSettings"]["Networks"]) == {f"{project}_default"}
    assert copy["HostConfig"]["RestartPolicy"]["Name"] == "no"
    docker("kill", f"{project}-{first}")
    assert await provisioner.want(0, [second]) == []
    await provisioner.release(second)
    await provisioner.release("standby-1")
    await provisioner.close()
    left = containers(project)
    assert {name: one["State"]["Status"] for name, one in left.items()} == {"standby-1": "running", "other": "running"}


def test_the_compose_file_that_lets_the_monitor_do_so_changes_the_monitor_alone() -> None:
    added = yaml.safe_load((REPOSITORY / "deploy" / "docker" / "provisioner.yaml").read_text(encoding="utf-8"))
    monitor = added["services"].pop("monitor")
    assert added == {"services": {}, "version": yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["version"]}
    assert monitor["volumes"] == ["/var/run/docker.sock:/var/run/docker.sock"]
    assert monitor["environment"]["BATON_MONITOR__PROVISIONER"] == "docker"
