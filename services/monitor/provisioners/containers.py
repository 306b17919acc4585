"""What a new container is to be: a copy of one that runs as wanted, with a name, labels and an environment of its own.

Pure but for `read_env_file`. The shapes are those of Docker's HTTP API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError

COPIED: Final = (
    "Image", "Cmd", "Entrypoint", "Env", "User", "WorkingDir", "StopSignal", "StopTimeout", "Healthcheck",
)  # fmt: skip
COPIED_OF_HOST: Final = (
    "Binds", "Mounts", "Tmpfs", "VolumesFrom", "ReadonlyRootfs", "CapAdd", "CapDrop", "SecurityOpt", "Privileged",
    "Init", "NetworkMode", "IpcMode", "ShmSize", "Runtime", "Devices", "DeviceRequests", "GroupAdd", "Memory",
    "NanoCpus", "CpuShares", "CpusetCpus", "PidsLimit", "Ulimits", "Sysctls", "ExtraHosts", "Dns", "LogConfig",
)  # fmt: skip
"""Not ports, not the restart policy: whoever ends is replaced under another name."""
COMMAND: Final = ["python", "-m", "services.standby"]


@dataclass(slots=True)
class Wanted:
    """How new containers are to be; what is set wins over the one they are like."""

    labels: dict[str, str]
    environ: Mapping[str, str] = field(repr=False)
    image: str = ""
    network: str = ""
    command: list[str] = field(default_factory=list)
    like: dict[str, Any] | None = field(default=None, repr=False)  # what the engine says of a container


def creation(wanted: Wanted, labels: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Write the body of POST /containers/create."""
    like = wanted.like or {}
    config: dict[str, Any] = {name: value for name, value in like.get("Config", {}).items() if name in COPIED and value}
    host = {name: value for name, value in like.get("HostConfig", {}).items() if name in COPIED_OF_HOST and value}
    networks = [wanted.network] if wanted.network else list(like.get("NetworkSettings", {}).get("Networks", {}))
    if wanted.network:
        host["NetworkMode"] = wanted.network
    if wanted.image:
        config["Image"] = wanted.image
    if wanted.command or not like:
        config["Cmd"] = wanted.command or COMMAND
    known = dict(entry.partition("=")[::2] for entry in config.get("Env", []))
    config["Env"] = [f"{name}={value}" for name, value in {**known, **wanted.environ, **environ}.items()]
    config["Labels"] = {**wanted.labels, **labels}
    config["HostConfig"] = {**host, "RestartPolicy": {"Name": "no"}, "AutoRemove": False}
    config["NetworkingConfig"] = {"EndpointsConfig": {name: {} for name in networks}}
    return config


def read_env_file(path: Path) -> dict[str, str]:
    """Read NAME=value lines, as `docker run --env-file` does. Raises ConfigError."""
    where = "monitor.provisioner_options, of docker: env_file"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{where} cannot be read: {error}"]) from error
    entries = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    wrong = [number for number, line in enumerate(entries, 1) if "=" not in line or line.startswith("=")]
    if wrong:  # the line itself may be a secret
        raise ConfigError([f"{where} {path}: entry {wrong[0]} is not NAME=value"])
    return {name.strip(): value for name, _, value in (entry.partition("=") for entry in entries)}
