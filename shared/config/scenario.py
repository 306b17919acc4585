"""A scenario: its model and engine, its objectives, its groups, and how the fleet follows its traffic."""

from dataclasses import dataclass, field
from typing import Any

from shared.config.checks import ANY, SECONDS, instance_name
from shared.config.reader import setting

_SHARE = (0.0, 1.0)
_COUNT = (0, 1 << 30)


@dataclass(frozen=True)
class WhenSettings:
    """Rules on a request: all that are set must hold. Used where the request's model name is an alias of several."""

    prompt_tokens_from: int = setting(0, between=_COUNT)
    prompt_tokens_below: int = setting(0, between=_COUNT)  # 0: any
    max_tokens_from: int = setting(0, between=_COUNT)  # asked for
    max_tokens_below: int = setting(0, between=_COUNT)  # 0: any
    tools: str = setting("any", choices=("any", "yes", "no"))
    streamed: str = setting("any", choices=("any", "yes", "no"))
    tenants: tuple[str, ...] = setting(())  # one of them asks
    prompt_matches: str = setting("")  # a regular expression found in the first text of the prompt


@dataclass(frozen=True)
class GroupSettings:
    """One group with a name; where it says nothing, the scenario does."""

    prefill: int = setting(0, between=(0, 10_000))  # 0: as the scenario
    decode: int = setting(0, between=(0, 10_000))
    strategy: str = setting("")  # a name for how the model is split, like tp8; requests go by concurrency
    streams_from: int = setting(0, between=_COUNT)  # concurrency from which its strategy is best; both 0: learnt
    streams_below: int = setting(0, between=_COUNT)  # 0: no end
    devices_per_worker: int = setting(0, between=(0, 1024))  # 0: as the scenario
    engine_options: dict[str, Any] = field(default_factory=dict)  # over the scenario's


@dataclass(frozen=True)
class RatioSettings:
    """How the number of prefills to decodes in a group follows what is measured."""

    mode: str = setting("auto", choices=("auto", "explain", "fixed"))  # explain: say what it would do, and do nothing
    window_s: float = setting(30.0, between=SECONDS)  # over which is measured
    gain: float = setting(0.1, between=_SHARE)  # throughput a step must promise
    hold_s: float = setting(20.0, between=(0.0, 3600.0))  # for which it must promise so
    rest_s: float = setting(60.0, between=(0.0, 3600.0))  # after a step, before the next
    busy: float = setting(0.5, between=_SHARE)  # use of the scarcer role, below which nothing is done
    least: int = setting(2, between=(1, 10_000))  # of each role in the scenario, where a group has four members or more


@dataclass(frozen=True)
class ScaleSettings:
    """How many groups there are, by the clock and by the load."""

    least: int = setting(1, between=(0, 1024))  # groups, whatever the rest says
    most: int = setting(0, between=(0, 1024))  # 0: as many as `groups`, so nothing is added by load
    timetable: tuple[str, ...] = setting(())  # "minute hour day month weekday = groups", as cron writes the first five
    timezone: str = setting("UTC")
    target: float = setting(0.7, between=(0.05, 1.0))  # use of the scarcer role that is aimed at
    slack: float = setting(0.2, between=_SHARE)  # how far below the target the smaller fleet must stay
    up_s: float = setting(15.0, between=(0.0, 3600.0))  # for which the load must want more
    down_s: float = setting(300.0, between=(0.0, 86_400.0))  # or fewer
    surplus: str = setting("standby", choices=("standby", "release"))  # what becomes of freed instances


@dataclass(frozen=True)
class ScenarioSettings:
    """A kind of traffic: its model, its engine, its objectives and how many workers start."""

    model: str
    engine: str = setting("torch", choices=("torch", "vllm", "sim"))
    prefill: int = setting(1, between=(0, 10_000))  # of each group
    decode: int = setting(1, between=(0, 10_000))
    groups: int = setting(1, between=(0, 1024))
    prefill_slots: int = setting(8, between=(1, 65_536))  # prompts one prefill holds, each until its KV has left
    ttft_slo_ms: int = setting(2000, between=ANY)
    tpot_slo_ms: int = setting(200, between=ANY)
    queue_timeout_s: float = setting(30.0, between=SECONDS)  # without a worker by then a request is refused
    request_timeout_s: float = setting(600.0, between=SECONDS)
    aliases: tuple[str, ...] = setting(())  # other names of it in a request's `model`; scenarios may share one
    when: WhenSettings = field(default_factory=WhenSettings)  # which requests that use a shared name are its own
    feed: str = setting("spread", choices=("spread", "fill"))  # fill: one idle prefill after another
    prefix_affinity: bool = setting(
        default=True
    )  # prompts go where their beginning was computed, if that is not busier
    affinity_slack: int = setting(1, between=(0, 65_536))  # streams that such a prefill may have more than the idlest
    local_prefill_tokens: int = setting(0, between=_COUNT)  # prompts below it may be computed at decode; 0: none
    overlap_tokens: int = setting(0, between=_COUNT)  # prompts from it on are pushed while they are computed; 0: none
    moderate_prompt: tuple[str, ...] = setting(())  # names of [moderation.<name>], asked in this order
    moderate_answer: tuple[str, ...] = setting(())
    # how the model writes calls of functions; auto: as its chat template does
    tool_format: str = setting("auto", choices=("auto", "hermes", "llama3", "mistral", "json"))
    devices_per_worker: int = setting(0, between=(0, 1024))  # of instance.devices; 0: as the engine splits the model
    engine_options: dict[str, Any] = field(default_factory=dict)  # the engine checks them
    group: dict[str, GroupSettings] = field(default_factory=dict, metadata={"check": instance_name})  # beside `groups`
    ratio: RatioSettings = field(default_factory=RatioSettings)
    scale: ScaleSettings = field(default_factory=ScaleSettings)
