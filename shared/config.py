"""Every key of Baton's configuration, with its default, its unit and its bounds.

Owns the keys and `load`. Read once, in `__main__`; each object gets its slice. Secrets are never printed.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.config_reader import BETWEEN, PREFIX, Reader, Table, Text, merged, setting, variable
from shared.errors import ConfigError
from shared.subjects import INSTANCE_NAME, SCENARIO_NAME

MIB = 1 << 20
PORT = (0, 65535)
SECONDS = (0.01, 86_400)
ANY = (1, 1 << 62)


def _url(*schemes: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not value:
            return ""
        try:
            parts = urlsplit(value)
            whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        return "" if whole else f"is no URL of the form {schemes[0]}://host:port"

    return check


def _scenario_name(value: str) -> str:
    return "" if not value or SCENARIO_NAME.match(value) else "must be lower-case letters, digits and inner hyphens"


def _instance_name(value: str) -> str:
    return "" if not value or INSTANCE_NAME.match(value) else "must be lower-case letters, digits and hyphens"


def _prefix(value: str) -> str:
    return "" if value.isascii() and value.isalnum() else "must be one word of letters and digits"


@dataclass(frozen=True)
class Credentials:
    """What one role signs in with."""

    user: str
    password: str = field(repr=False, metadata={"secret": True})


@dataclass(frozen=True)
class Nats:
    """The connection to NATS. An empty url means a server started by `baton up`."""

    url: str = setting("", check=_url("nats", "tls", "ws", "wss"), secret=True)  # may hold user and password
    user: str = setting("")
    password: str = setting("", secret=True)
    credentials: dict[str, Credentials] = field(default_factory=dict)  # by role; wins over user and password
    prefix: str = setting("baton", check=_prefix)  # of every subject
    connect_timeout_s: float = setting(30.0, between=SECONDS)  # at start; afterwards it reconnects for ever
    drain_timeout_s: float = setting(3.0, between=SECONDS)
    max_pending_bytes: int = setting(
        8 * MIB, between=(65_536, 1 << 62)
    )  # unsent bytes above which publishing is refused

    def credentials_for(self, role: str) -> tuple[str, str]:
        """User and password of a role; both empty where the url holds them or the server asks for none."""
        own = self.credentials.get(role)
        return (own.user, own.password) if own else (self.user, self.password)


@dataclass(frozen=True)
class RedisSettings:
    """The connection to Redis or Valkey. An empty url means a server started by `baton up`."""

    url: str = setting("", check=_url("redis", "rediss"), secret=True)  # may hold user and password
    timeout_s: float = setting(2.0, between=SECONDS)  # of one command; leases use ttl / 4


@dataclass(frozen=True)
class GatewaySettings:
    """The HTTP and NATS entrance."""

    host: str = setting("127.0.0.1")
    port: int = setting(8000, between=PORT)
    api_keys: tuple[str, ...] = setting((), secret=True)  # empty: no key is asked for
    max_body_bytes: int = setting(8 * MIB, between=(1024, 1 << 62))
    max_streams: int = setting(4096, between=ANY)  # open requests, waiting ones included
    max_waiting: int = setting(1024, between=(0, 1 << 62))  # requests that no prefill has taken yet
    send_timeout_s: float = setting(30.0, between=SECONDS)  # a client that reads nothing for so long is cut
    max_unsent_bytes: int = setting(1 * MIB, between=(4096, 1 << 62))  # buffered for one client


@dataclass(frozen=True)
class MonitorSettings:
    """The dashboard."""

    host: str = setting("127.0.0.1")
    port: int = setting(8010, between=PORT)


@dataclass(frozen=True)
class FleetSettings:
    """The clockwork that all instances share."""

    lease_ttl_s: float = setting(3.0, between=(0.2, 600.0))  # renewed at a third of it
    heartbeat_s: float = setting(0.5, between=(0.02, 60.0))
    heartbeat_misses: int = setting(3, between=(1, 100))  # so many in a row missing: suspected
    offer_timeout_s: float = setting(1.0, between=SECONDS)  # Accepted or Rejected is due within it
    push_timeout_s: float = setting(10.0, between=SECONDS)  # one KV buffer
    progress_s: float = setting(10.0, between=SECONDS)  # a stream without a new token for so long has stalled
    drain_s: float = setting(30.0, between=(0.0, 3600.0))  # for running requests at an orderly stop
    stop_s: float = setting(10.0, between=SECONDS)  # for everything after the drain
    attempts: int = setting(4, between=(1, 100))  # at one request


@dataclass(frozen=True)
class KvSettings:
    """The KV hand-off."""

    host: str = setting("127.0.0.1")
    port: int = setting(0, between=PORT)  # 0: any free one
    staging_mb: int = setting(512, between=ANY)
    max_transfers: int = setting(64, between=ANY)


@dataclass(frozen=True)
class ScenarioSettings:
    """A kind of traffic: its model, its engine, its objectives and how many workers start."""

    model: str
    engine: str = setting("torch", choices=("torch", "vllm", "sim"))
    prefill: int = setting(1, between=(0, 10_000))
    decode: int = setting(1, between=(0, 10_000))
    prefill_slots: int = setting(8, between=(1, 65_536))  # prompts one prefill holds, each until its KV has left
    ttft_slo_ms: int = setting(2000, between=ANY)
    tpot_slo_ms: int = setting(200, between=ANY)
    request_timeout_s: float = setting(600.0, between=SECONDS)
    engine_options: dict[str, Any] = field(default_factory=dict)  # the engine checks them


@dataclass(frozen=True)
class InstanceSettings:
    """Who this process is. `--id`, `--scenario` and `--group` win over these."""

    id: str = setting("", check=_instance_name)  # empty: role and random letters
    scenario: str = setting("", check=_scenario_name)
    group: str = setting("", check=_instance_name)
    health_host: str = setting("127.0.0.1")
    health_port: int = setting(0, between=PORT)  # 0: any free one


@dataclass(frozen=True)
class TelemetrySettings:
    """Logs; traces are configured by the standard OTEL_* variables."""

    log_level: str = setting("info", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("auto", choices=("auto", "json", "plain"))  # auto: plain on a terminal


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    nats: Nats = field(default_factory=Nats)
    redis: RedisSettings = field(default_factory=RedisSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    kv: KvSettings = field(default_factory=KvSettings)
    scenario: dict[str, ScenarioSettings] = field(default_factory=dict, metadata={"check": _scenario_name})
    instance: InstanceSettings = field(default_factory=InstanceSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

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
    if path[0] == "scenario":
        path[1] = path[1].replace("_", "-")  # a scenario's name has no underscore, a variable's no hyphen
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
    if config.instance.scenario and config.instance.scenario not in config.scenario:
        faults.append(f"instance.scenario: there is no [scenario.{config.instance.scenario}]")
    return faults
