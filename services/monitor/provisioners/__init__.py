"""Provisioners: where instances come from and where they go. One protocol; local processes, Docker, Kubernetes.

A provisioner starts standbys, which the monitor then gives roles, and takes instances away for good. It decides nothing
and keeps nothing that it could not find out again: monitors change leaders, and each has a provisioner of its own.
"""

from collections.abc import Collection, Mapping
from typing import Final, Protocol, runtime_checkable

from shared.config import MonitorSettings
from shared.errors import ConfigError

CALL_S: Final = 30.0
"""A call that takes longer is cancelled by the monitor, logged, and made again later."""
ARRIVE_S: Final = 120.0
"""An instance that was started and has not been seen for so long is not on its way any more: another one is started.

Take it away only where it is broken for sure: its process has ended, its image cannot be had. Silence is no proof.
"""


class Provisioner(Protocol):
    """Calls come one at a time, from the leading monitor only, and may be cancelled; each can be repeated.

    An instance's id is the provisioner's to choose when it starts one (BATON_INSTANCE__ID): lower-case letters, digits
    and hyphens, never used twice. It keeps that id in whatever role, so what runs can be told from what is seen.
    """

    async def open(self) -> None:
        """Connect. Raises ConfigError for options that are wrong, Unavailable or LinkLost to be asked again later."""
        ...

    async def want(self, missing: int, seen: Collection[str]) -> list[str]:
        """Have `missing` more standbys started than are `seen`; returns the ids of those that were started now.

        `seen` are all living instances, whoever started them. Those of ours that run, are younger than ARRIVE_S and not
        seen are on their way, and count: asked again at once, nothing more is started. Never more than `most_instances`
        of ours run; raises Overloaded where that leaves something missing (after starting what fits). Raises
        Unavailable or LinkLost when the platform does not answer.
        """
        ...

    async def release(self, instance: str) -> None:
        """Take an instance away for good: it has drained or is about to end, and nothing starts in its place.

        One that is not there, or not ours, is no error. Raises Unavailable or LinkLost.
        """
        ...

    async def close(self) -> None:
        """Disconnect; instances stay. Idempotent, and allowed without `open`."""
        ...


Place = tuple[str, str, str]
"""Role, scenario and group of an instance; empty where it has none."""


@runtime_checkable
class Showing(Protocol):
    """A provisioner whose platform can show people what its instances have become."""

    async def show(self, places: Mapping[str, Place]) -> None:
        """Show what these instances are; those that are not ours are passed over. Called as the others are."""
        ...


def make(settings: MonitorSettings) -> Provisioner | None:
    """Make the one that is configured; None where there is none. Raises ConfigError for wrong or missing options.

    Options are `settings.provisioner_options`, strings by name; each provisioner checks its own, unknown ones included.
    """
    match settings.provisioner:
        case "local":
            from services.monitor.provisioners.local import LocalProvisioner  # noqa: PLC0415  each has its own needs

            return LocalProvisioner(settings)
        case "docker":
            from services.monitor.provisioners.docker import DockerProvisioner  # noqa: PLC0415

            return DockerProvisioner(settings)
        case "kubernetes":
            from services.monitor.provisioners.kubernetes import KubernetesProvisioner  # noqa: PLC0415

            return KubernetesProvisioner(settings)
        case _:
            return None


def check_options(settings: MonitorSettings, known: Collection[str], needed: Collection[str] = ()) -> dict[str, str]:
    """Return the options. Raises ConfigError that names every unknown and every missing one."""
    options = settings.provisioner_options
    where = f"monitor.provisioner_options, of {settings.provisioner}"
    faults = [f"{where}: there is no option {name!r}; known are {', '.join(sorted(known))}" for name in options]
    faults = [fault for fault, name in zip(faults, options, strict=True) if name not in known]
    faults += [f"{where}: {name} is missing" for name in needed if not options.get(name)]
    if faults:
        raise ConfigError(faults)
    return dict(options)
