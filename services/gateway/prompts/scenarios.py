"""What is served here: each configured scenario with its model's tokenizer and limits.

Owns the answer to "which scenario does this request mean". Loads tokenizers, never weights.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.content.patterns import BadPattern
from services.gateway.prompts.prompter import Prompter
from services.gateway.prompts.rules import Rules
from shared.config import Config, ScenarioSettings
from shared.config.scenario import WhenSettings
from shared.errors import BadRequest, ConfigError, UnknownScenario
from shared.models import resolve
from shared.text import open_tokenizer

LEAST_FIRST_TOKEN_S: Final = 60.0
"""Waiting for the first token ends well before the 120 s after which some clients give up."""
SLO_FACTOR: Final = 30.0
"""A first token so many times later than its objective is worth nothing to anyone."""

SHOWN_CHARS: Final = 64
"""Of an unknown name, in the error that says so."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of traffic, as the gateway sees it."""

    name: str
    model: str
    prompter: Prompter
    queue_s: float  # within it a worker must have taken the request
    first_token_s: float  # and brought a token
    timeout_s: float  # of the whole request
    created: int
    rules: Rules
    ttft_s: float  # objectives
    tpot_s: float
    aliases: tuple[str, ...] = ()
    guarded: bool = False  # its answers are moderated
    affinity: bool = True  # prompts go where their beginning was computed

    def card(self, name: str = "") -> dict[str, Any]:
        """Make OpenAI's model object, of the scenario or of a name that leads to it."""
        return {
            "id": name or self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "baton",
            "root": self.model,
            "max_model_len": self.prompter.context,
        }


class Scenarios:
    """All scenarios of the configuration."""

    def __init__(self, scenarios: list[Scenario]) -> None:
        self._by_name = {scenario.name: scenario for scenario in scenarios}
        self._by_alias: dict[str, list[Scenario]] = {}
        for scenario in scenarios:
            for alias in scenario.aliases:
                if alias not in self._by_name:  # a scenario's own name wins
                    self._by_alias.setdefault(alias, []).append(scenario)

    def __iter__(self) -> Iterator[Scenario]:
        return iter(self._by_name.values())

    def find(self, model: str | None, header: str | None = None) -> Scenario:
        """Find what `model` names: scenario, scenario/model, or a name that several share. The header wins.

        Of several it is the first without rules, else the first. Raises UnknownScenario.
        """
        if header:
            if header not in self._by_name:
                raise UnknownScenario(f"The scenario '{_short(header)}' does not exist", "x-baton-scenario")
            return self._by_name[header]
        if model is None:
            raise BadRequest("Missing required parameter: 'model'", "model")
        name, slash, rest = model.partition("/")
        scenario = self._by_name.get(name)
        if scenario is None or (slash and rest != scenario.model):
            sharing = self.sharing(model)
            if not sharing:
                raise UnknownScenario(f"The model '{_short(model)}' does not exist", "model")
            return next((one for one in sharing if not one.rules.any), sharing[0])
        return scenario

    def sharing(self, model: str | None) -> list[Scenario]:
        """List the scenarios that share a name, in the order of the configuration; none: it is no such name."""
        return self._by_alias.get(model, []) if model is not None and model not in self._by_name else []

    def cards(self, may_use: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Make the list of models that a client may name."""
        mine = [scenario.card() for scenario in self if may_use(scenario.name)]
        for alias, sharing in self._by_alias.items():
            if any(may_use(scenario.name) for scenario in sharing):
                mine.append(self.find(alias).card(alias))
        return mine


def not_served(model: str, problems: list[str]) -> UnknownScenario:
    """Say that a name leads nowhere for a request, and why."""
    return UnknownScenario(f"The model '{_short(model)}' does not take such a request: {'; '.join(problems)}", "model")


def open_scenarios(config: Config, threads: ThreadPoolExecutor) -> Scenarios:
    """Load every scenario's tokenizer. Takes seconds. Raises BatonError when a model cannot be found.

    Raises ConfigError for a rule that cannot be read.
    """
    opened = threads.map(lambda name: _open(name, config.scenarios[name], threads), config.scenarios)
    return Scenarios(list(opened))


def _open(name: str, settings: ScenarioSettings, threads: ThreadPoolExecutor) -> Scenario:
    spec = resolve(settings.model, settings.engine, settings.engine_options)
    allowance_s = max(LEAST_FIRST_TOKEN_S, SLO_FACTOR * settings.ttft_slo_ms / 1000)
    return Scenario(
        name=name,
        model=spec.name,
        prompter=Prompter(spec, open_tokenizer(spec), threads, tool_format=settings.tool_format),
        queue_s=settings.queue_timeout_s,
        first_token_s=min(settings.request_timeout_s, max(allowance_s, 2 * settings.queue_timeout_s)),
        timeout_s=settings.request_timeout_s,
        created=int(time.time()),
        rules=_rules(name, settings.when),
        ttft_s=settings.ttft_slo_ms / 1000,
        tpot_s=settings.tpot_slo_ms / 1000,
        aliases=settings.aliases,
        guarded=bool(settings.moderate_answer),
        affinity=settings.prefix_affinity,
    )


def _rules(name: str, when: WhenSettings) -> Rules:
    try:
        return Rules(when)
    except BadPattern as error:
        raise ConfigError([f"scenario.{name}.when.prompt_matches cannot be used: {error}"]) from error


def _short(name: str) -> str:
    return name if len(name) <= SHOWN_CHARS else f"{name[:SHOWN_CHARS]}..."
