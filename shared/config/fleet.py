"""The fleet: its clockwork and its processes."""

from dataclasses import dataclass, field

from shared.config.checks import ANY, PORT, SECONDS, address, instance_name, scenario_name
from shared.config.reader import setting


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
    ready_s: float = setting(600.0, between=(1.0, 86_400.0))  # for an instance to load its role's model; then another
    attempts: int = setting(4, between=(1, 100))  # at one request
    orphan_grace_s: float = setting(30.0, between=(0.0, 3600.0))  # streams run on so long after their gateway is gone
    keep_s: float = setting(60.0, between=(0.0, 3600.0))  # a stream that is over may be resumed for so long; 0: not


@dataclass(frozen=True)
class KvSettings:
    """The KV hand-off."""

    host: str = setting("127.0.0.1")
    port: int = setting(0, between=PORT)  # 0: any free one
    advertise: str = setting("", check=address)  # what senders are told instead of the address listened on
    shared_memory: bool = setting(True)  # between workers of one machine; without it they use TCP, too
    staging_mb: int = setting(512, between=ANY)
    device_staging_mb: int = setting(0, between=(0, 1 << 24))  # on the GPU, for pushes by cuda_ipc; 0: none go that way
    max_transfers: int = setting(64, between=ANY)
    tcp_connections: int = setting(0, between=(0, 16))  # for one large buffer; 0: one for every four cores, up to four
    mooncake: str = setting("none", choices=("none", "tcp", "rdma", "ascend"))  # what its transfer engine runs over
    mooncake_device: str = setting("")  # rdma: devices, commas between, empty: any; ascend: the NPU's number
    mooncake_grace_s: float = setting(120.0, between=(0.0, 86_400))  # a write may come so long after its sender left


@dataclass(frozen=True)
class InstanceSettings:
    """Who this process is. `--id`, `--scenario` and `--group` win over these."""

    id: str = setting("", check=instance_name)  # empty: role and random letters
    scenario: str = setting("", check=scenario_name)
    group: str = setting("", check=instance_name)
    health_host: str = setting("127.0.0.1")
    health_port: int = setting(0, between=PORT)  # 0: any free one
    devices: tuple[str, ...] = setting(())  # of this machine, like npu:0-7; `baton up` gives each worker its own
    fault_file: str = setting("")  # that a node's watcher writes; empty: none is read
    revision: int = setting(0, between=(0, 1 << 53))  # of the scenario's model; the monitor sets it


@dataclass(frozen=True)
class MonitorSettings:
    """The dashboard, and where new instances come from."""

    host: str = setting("127.0.0.1")
    port: int = setting(8010, between=PORT)
    token: str = setting("", secret=True)  # asked of whoever presses the dashboard's buttons; empty: it has none
    provisioner: str = setting("none", choices=("none", "local", "docker", "kubernetes"))
    standbys: int = setting(1, between=(0, 10_000))  # kept free, where there is a provisioner
    most_instances: int = setting(64, between=(1, 100_000))  # that a provisioner may have running
    provisioner_options: dict[str, str] = field(default_factory=dict)  # of the one chosen; it checks them


@dataclass(frozen=True)
class TelemetrySettings:
    """Logs; traces are configured by the standard OTEL_* variables."""

    log_level: str = setting("info", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("auto", choices=("auto", "json", "plain"))  # auto: plain on a terminal
