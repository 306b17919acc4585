"""What `baton up` will start, worked out before anything starts. Starts nothing, opens nothing.

Owns how the command line's wishes join the configuration, and each instance's name, command and environment.
"""

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import services
from services.local.children import Command
from shared.config import Config, ScenarioSettings, load
from shared.config.devices import devices_needed, of_any_worker, read_devices
from shared.config.groups import configured_groups, in_group
from shared.config.reader import variable
from shared.errors import ConfigError
from shared.local_supply import OPTION
from shared.messages import Role
from shared.models.known import KNOWN, import_command, imported
from shared.policy.steering.timetable import Timetable

DEFAULT_SCENARIO = "chat"
DEFAULT_MODEL = "gemma-3-270m"
DEFAULT_CONTEXT = 8192
"""Tokens: what the default model's KV cache holds of one request on a small machine, with room for a second."""
LOCAL_DRAIN_S = 5.0
"""How long a local cluster waits for running requests when it is stopped, unless it is configured otherwise."""
HOME = Path(services.__file__).parents[1]
WORKERS = frozenset({Role.PREFILL, Role.DECODE, Role.STANDBY})


@dataclass(frozen=True, slots=True)
class Wishes:
    """The command line of `baton up`; None: as configured."""

    config: Path | None = None
    port: int | None = None
    dashboard_port: int | None = None
    prefill: int | None = None
    decode: int | None = None
    standby: int = 1
    gateways: int = 1
    engine: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """Where NATS, Redis and we are. `users` holds user and password of each role at an embedded NATS server."""

    nats_url: str
    redis_url: str
    users: dict[str, str] = field(default_factory=dict, repr=False)
    directory: str = ""  # of the state, where the monitor may ask for instances


@dataclass(frozen=True, slots=True)
class Start:
    """One instance to start."""

    id: str
    role: Role
    scenario: str = ""
    port: int = 0  # of a gateway or the monitor
    health_port: int = 0  # of a gateway: several may share the port above, none this one
    group: str = ""


class Plan:
    """The whole cluster, worked out. Raises ConfigError when the wishes and the configuration do not fit."""

    def __init__(self, wishes: Wishes, environ: Mapping[str, str]) -> None:
        self.wishes = wishes
        self._environ = dict(environ)
        self._environ.update(_overrides(wishes, environ))
        config = load(wishes.config, self._environ)
        self._environ.update(_for_each_scenario(wishes, config))
        self.config: Config = load(wishes.config, self._environ)
        self._numbers: dict[str, int] = {}
        self._several = len(self.config.scenarios) > 1
        _check(self.config)
        self.devices = read_devices(self.config.instance.devices)
        if (over := self._devices_over()) < 0:
            have, want = len(self.devices.ids), len(self.devices.ids) - over
            raise ConfigError([f"instance.devices has {have}, and the workers need {want}; start fewer of them"])

    def imports(self) -> list[Command]:
        """List the imports of packaged models that have not been made yet; they talk to the terminal."""
        wanted = {
            scenario.engine_options.get("tokenizer") if scenario.engine == "sim" else scenario.model
            for scenario in self.config.scenarios.values()
        }
        missing = [name for name in KNOWN if name in wanted and imported(name) is None]
        return [Command(f"import of {name}", import_command(name), self._environ, None, HOME) for name in missing]

    def starts(self, gateway_port: int, health_ports: list[int], dashboard_port: int) -> list[Start]:
        """List the instances of a fresh cluster, in the order of starting. The slowest to be ready come first.

        All gateways listen on the one port; there is one for each health port.
        """
        workers = [
            self.start(role, scenario, group.name)
            for scenario, settings in self.config.scenarios.items()
            for group in configured_groups(settings)
            for role, count in ((Role.PREFILL, group.prefill), (Role.DECODE, group.decode))
            for _ in range(count)
        ]
        monitor = self.start(Role.MONITOR, port=dashboard_port)
        gateways = [self.start(Role.GATEWAY, port=gateway_port, health_port=health) for health in health_ports]
        standbys = [self.start(Role.STANDBY) for _ in range(self._standbys())]
        return [*workers, monitor, *gateways, *standbys]

    def needs(self, start: Start) -> int:
        """How many of the machine's devices an instance must have; a standby as many as whatever it may become."""
        if start.role is Role.STANDBY:
            return max(map(of_any_worker, self.config.scenarios.values()), default=0)
        if start.role not in WORKERS:
            return 0
        return devices_needed(in_group(self.config.scenarios[start.scenario], start.group))

    def _devices_over(self) -> int:
        """How many devices are left once every worker has its own; negative: so many are missing."""
        if not self.devices.ids:
            return 0
        return len(self.devices.ids) - sum(
            (group.prefill + group.decode) * devices_needed(in_group(settings, group.name))
            for settings in self.config.scenarios.values()
            for group in configured_groups(settings)
        )

    def _standbys(self) -> int:
        """As many as are wished for and have devices."""
        each = self.needs(Start("", Role.STANDBY)) if self.devices.ids else 0
        return min(self.wishes.standby, self._devices_over() // each) if each else self.wishes.standby

    def start(self, role: Role, scenario: str = "", group: str = "", *, port: int = 0, health_port: int = 0) -> Start:
        """Name one more instance. A name is never used twice: frames meant for the dead must not reach the living."""
        stem = f"{scenario}-{role.value}" if scenario and self._several else role.value
        self._numbers[stem] = self._numbers.get(stem, 0) + 1
        return Start(f"{stem}-{self._numbers[stem]}", role, scenario, port, health_port, group)

    def command(self, start: Start, links: Links, logs: Path) -> Command:
        """Return the command of one instance."""
        argv = [sys.executable, "-m", f"services.{start.role.value}"]
        if self.wishes.config is not None:
            argv += ["--config", str(self.wishes.config.absolute())]
        return Command(start.id, argv, self._environment(start, links), logs / f"{start.id}.log", HOME)

    def _environment(self, start: Start, links: Links) -> dict[str, str]:
        keys: dict[str, Any] = {
            "nats.url": links.nats_url,
            "redis.url": links.redis_url,
            "instance.id": start.id,
            "instance.scenario": start.scenario,
            "instance.group": start.group,
        }
        if start.role is Role.GATEWAY:
            keys["gateway.port"] = start.port
            keys["instance.health_port"] = start.health_port
            if self.wishes.gateways > 1:
                keys["gateway.reuse_port"] = "true"
        if start.role is Role.MONITOR:
            keys["monitor.port"] = start.port
            keys |= self._provisioner(links)
        for user in _users_of(start.role):
            if user in links.users:
                keys[f"nats.credentials.{user}.user"] = user
                keys[f"nats.credentials.{user}.password"] = links.users[user]
        environ = {**self._environ, **{variable(key): str(value) for key, value in keys.items()}}
        return {**self._threads(), "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **environ}

    def _provisioner(self, links: Links) -> dict[str, Any]:
        """Have the monitor ask us for instances, unless it is said where they come from."""
        chosen = self.config.monitor.provisioner
        if chosen == "none" and not self._says("provisioner") and links.directory:
            chosen = "local"
        if chosen != "local":
            return {}
        option = f"monitor.provisioner_options.{OPTION}"
        found = {"monitor.provisioner": "local", option: links.directory}
        return found if self._says("standbys") else {**found, "monitor.standbys": self._standbys()}

    def _says(self, key: str) -> bool:
        """Say whether a key of the monitor is set by somebody; by its value alone a default looks the same."""
        table = {} if self.wishes.config is None else tomllib.loads(self.wishes.config.read_text(encoding="utf-8"))
        return key in table.get("monitor", {}) or variable(f"monitor.{key}") in self._environ

    def _threads(self) -> dict[str, str]:
        """Share the cores among a role's workers. Threads that wait sleep: the other role has what one leaves idle."""
        groups = [group for settings in self.config.scenarios.values() for group in configured_groups(settings)]
        most = max(sum(group.prefill for group in groups), sum(group.decode for group in groups), 1)
        share = max(1, (os.cpu_count() or 1) // most)
        return {"OMP_NUM_THREADS": str(share), "MKL_NUM_THREADS": str(share)}


def _users_of(role: Role) -> list[str]:
    """Whose credentials an instance needs: workers and standbys become each other by order."""
    return sorted(WORKERS) if role in WORKERS else [role]


def _overrides(wishes: Wishes, environ: Mapping[str, str]) -> dict[str, str]:
    keys: dict[str, Any] = {"gateway.port": wishes.port, "monitor.port": wishes.dashboard_port}
    if wishes.config is None:
        scenario = variable(f"scenario.{DEFAULT_SCENARIO}")
        others = [name for name in environ if name.startswith(variable("scenario.")) and not name.startswith(scenario)]
        if not others and variable(f"scenario.{DEFAULT_SCENARIO}.model") not in environ:
            keys[f"scenario.{DEFAULT_SCENARIO}.model"] = wishes.model or DEFAULT_MODEL
            length = f"scenario.{DEFAULT_SCENARIO}.engine_options.max_model_len"
            if not wishes.model and not wishes.engine and variable(length) not in environ:
                keys[length] = DEFAULT_CONTEXT
        if variable("fleet.drain_s") not in environ:
            keys["fleet.drain_s"] = LOCAL_DRAIN_S
    return {variable(key): str(value) for key, value in keys.items() if value is not None}


def _for_each_scenario(wishes: Wishes, config: Config) -> dict[str, str]:
    keys: dict[str, Any] = {}
    for name, scenario in config.scenarios.items():
        model = wishes.model or scenario.model
        own = {
            "model": str(Path(model).expanduser().absolute()) if Path(model).expanduser().is_dir() else model,
            "engine": wishes.engine,
            "prefill": wishes.prefill,
            "decode": wishes.decode,
        }
        keys |= {f"scenario.{name}.{key}": value for key, value in own.items()}
    return {variable(key): str(value) for key, value in keys.items() if value is not None}


def _check(config: Config) -> None:
    faults = []
    if not config.scenarios:
        faults.append("there is no scenario; add a [scenario.chat] with a model")
    if config.gateway.port and config.gateway.port == config.monitor.port:
        faults.append(f"gateway.port and monitor.port are both {config.gateway.port}; give them different ports")
    faults += [fault for name, scenario in config.scenarios.items() for fault in _timetable_faults(name, scenario)]
    if faults:
        raise ConfigError(faults)


def _timetable_faults(name: str, scenario: ScenarioSettings) -> list[str]:
    """Read the time table as the monitor will, which would only say in its log what is wrong."""
    try:
        Timetable(scenario.scale.timetable, scenario.scale.timezone)
    except ValueError as error:
        return [f"scenario.{name}.scale: {error}"]
    return []
