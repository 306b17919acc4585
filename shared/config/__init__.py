"""Every key of Baton's configuration, with its default, its unit and its bounds.

Owns the whole and `load`; the sections are in the modules beside this one. Read once, in `__main__`; each object gets
its slice. Secrets are never printed.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.config.checks import scenario_name, tenant_name
from shared.config.devices import device_faults
from shared.config.fleet import (
    FleetSettings,
    InstanceSettings,
    KvSettings,
    MonitorSettings,
    TelemetrySettings,
)
from shared.config.gateway import GatewaySettings, edge_faults
from shared.config.moderation import ModeratorSettings, moderation_faults, moderator_name
from shared.config.reader import BETWEEN, PREFIX, Reader, Table, Text, merged, variable
from shared.config.scenario import GroupSettings, RatioSettings, ScaleSettings, ScenarioSettings, WhenSettings
from shared.config.servers import Credentials, Nats, RedisSettings
from shared.config.tenants import DEFAULT_TENANT, JwtSettings, TenantSettings, client_faults, tenancy_faults
from shared.errors import ConfigError

__all__ = [
    "DEFAULT_TENANT", "Config", "Credentials", "FleetSettings", "GatewaySettings", "GroupSettings",
    "InstanceSettings", "JwtSettings", "KvSettings", "ModeratorSettings", "MonitorSettings", "Nats", "RatioSettings",
    "RedisSettings", "ScaleSettings", "ScenarioSettings", "TelemetrySettings", "TenantSettings", "WhenSettings",
    "load",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    nats: Nats = field(default_factory=Nats)
    redis: RedisSettings = field(default_factory=RedisSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    kv: KvSettings = field(default_factory=KvSettings)
    scenario: dict[str, ScenarioSettings] = field(default_factory=dict, metadata={"check": scenario_name})
    moderation: dict[str, ModeratorSettings] = field(default_factory=dict, metadata={"check": moderator_name})
    instance: InstanceSettings = field(default_factory=InstanceSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    tenant: dict[str, TenantSettings] = field(default_factory=dict, metadata={"check": tenant_name})

    @property
    def scenarios(self) -> dict[str, ScenarioSettings]:
        """By name, in the order of the file."""
        return self.scenario


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read a TOML file (None: defaults) and then the BATON_* variables, which win. Raises ConfigError."""
    reader = Reader()
    table = _file(path, reader)
    for name in sorted(environ):
        table = _with_variable(table, name, environ[name], reader)
    config = reader.section(Config, table)
    if config is not None:
        reader.faults.extend(_contradictions(config))
    if reader.faults or config is None:
        raise ConfigError(reader.faults)
    return config


def _file(path: Path | None, reader: Reader) -> Table:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reader.faults.append(f"{path} cannot be read ({error.strerror}); give --config a readable file")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reader.faults.append(f"{path} is not valid TOML: {error}")
    return {}


def _with_variable(table: Table, name: str, text: str, reader: Reader) -> Table:
    if not name.startswith(PREFIX):
        return table
    path = name[len(PREFIX) :].lower().split(BETWEEN)
    if len(path) == 1:
        _near_miss(name, text, reader)
        return table
    if not all(path):
        reader.faults.append(f"{name} is no key; write {PREFIX}SECTION{BETWEEN}KEY")
        return table
    if path[0] in ("scenario", "moderation", "tenant"):
        path[1] = path[1].replace("_", "-")  # these names have no underscore, a variable's no hyphen
    return merged(table, path, Text(text))


def _near_miss(name: str, text: str, reader: Reader) -> None:
    """Report BATON_NATS_URL written for BATON_NATS__URL. Other names are not ours.

    Kubernetes, for one, makes BATON_GATEWAY_PORT=tcp://... of a service called baton-gateway.
    """
    section, _, key = name[len(PREFIX) :].lower().partition("_")
    kind = Config.__dataclass_fields__.get(section)
    made = kind.default_factory() if kind is not None and callable(kind.default_factory) else None
    if key in getattr(made, "__dataclass_fields__", {}) and not text.startswith(("tcp://", "udp://")):
        reader.faults.append(f"{name} is no key; did you mean {variable(f'{section}.{key}')}?")


def _contradictions(config: Config) -> list[str]:
    faults = []
    if config.nats.credentials and not config.nats.url:
        faults.append("nats.credentials needs nats.url; a server started by `baton up` makes its own")
    if bool(config.nats.user) != bool(config.nats.password):
        faults.append("nats.user and nats.password belong together; set both or neither")
    if config.fleet.heartbeat_s >= config.fleet.lease_ttl_s:
        faults.append("fleet.heartbeat_s must be smaller than fleet.lease_ttl_s")
    faults.extend(edge_faults(config.gateway))
    if config.instance.scenario and config.instance.scenario not in config.scenario:
        faults.append(f"instance.scenario: there is no [scenario.{config.instance.scenario}]")
    uses = {name: (one.moderate_prompt, one.moderate_answer) for name, one in config.scenario.items()}
    faults += device_faults(config.instance.devices, config.scenario)
    faults += client_faults(config.nats.clients)
    faults += tenancy_faults(config.gateway.jwt, config.tenant, config.scenario)
    return faults + moderation_faults(config.moderation, uses)
