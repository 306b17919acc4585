"""The fleet: its clockwork, its scenarios, its processes."""

from dataclasses import dataclass, field
from typing import Any

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
    queue_timeout_s: float = setting(30.0, between=SECONDS)  # without a worker by then a request is refused
    request_timeout_s: float = setting(600.0, between=SECONDS)
    moderate_prompt: tuple[str, ...] = setting(())  # names of [moderation.<name>], asked in this order
    moderate_answer: tuple[str, ...] = setting(())
    # how the model writes calls of functions; auto: as its chat template does
    tool_format: str = setting("auto", choices=("auto", "hermes", "llama3", "mistral", "json"))
    engine_options: dict[str, Any] = field(default_factory=dict)  # the engine checks them


@dataclass(frozen=True)
class InstanceSettings:
    """Who this process is. `--id`, `--scenario` and `--group` win over these."""

    id: str = setting("", check=instance_name)  # empty: role and random letters
    scenario: str = setting("", check=scenario_name)
    group: str = setting("", check=instance_name)
    health_host: str = setting("127.0.0.1")
    health_port: int = setting(0, between=PORT)  # 0: any free one


@dataclass(frozen=True)
class MonitorSettings:
    """The dashboard."""

    host: str = setting("127.0.0.1")
    port: int = setting(8010, between=PORT)


@dataclass(frozen=True)
class TelemetrySettings:
    """Logs; traces are configured by the standard OTEL_* variables."""

    log_level: str = setting("info", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("auto", choices=("auto", "json", "plain"))  # auto: plain on a terminal
