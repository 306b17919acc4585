"""The moderators of a gateway, and which scenario they watch over.

Owns them, the look at their files every few seconds, and their part in a reload. Requests whose scenario names no
moderator pay nothing.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from services.gateway.content.external import External
from services.gateway.content.files import RuleFiles
from services.gateway.content.guards import ChoiceGuard, Ends, Guarded
from services.gateway.content.judging import JudgeStage
from services.gateway.content.report import EXTERNAL, Report, Who
from services.gateway.content.scanner import Scanner
from services.gateway.content.stages import RuleStage, RuleWatch
from services.gateway.content.texts import Detokenizer, said
from services.gateway.relay.calls import Answer
from services.gateway.relay.record import Sink
from shared.config import Config, ModeratorSettings
from shared.errors import ContentRefused
from shared.instance import Instance
from shared.tasks import Tasks

LOOK_S: Final = 2.0
"""Between two looks at the files."""
OFF_LOOP_CHARS: Final = 2_000
"""Longer prompts are searched in a thread."""
SLICE_CHARS: Final = 8_192
"""Searched at once: no thread keeps the loop waiting for longer than that takes."""

Moderator = RuleFiles | External


class Moderation:
    """One per gateway. Made before the loop runs: reading the files takes its time."""

    def __init__(self, config: Config, threads: ThreadPoolExecutor) -> None:
        """Read every rule. Raises ConfigError."""
        self._config = config
        self._threads = threads
        self._rules = _read(config)
        self._services: dict[str, External] = {}
        self._retired: list[External] = []  # gone by a reload; answers under way may still ask them

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Make the services' clients; look after the files until the instance ends."""
        self._report = Report(instance.telemetry.registry)
        self._tasks: Tasks = instance.tasks
        self._services = self._clients(self._config)
        stack.push_async_callback(self._close)
        instance.reloading.add(self._prepare, "moderation")
        _ = instance.vital.spawn(self._look(), name="moderation files")  # without any, too: a reload may bring some

    @property
    def rules(self) -> dict[str, RuleFiles]:
        """The built-in moderators by name."""
        return self._rules

    # ---- prompts -----------------------------------------------------------------------------------------------------

    async def check(self, asked: object, tokens: Detokenizer, who: Who) -> None:
        """Ask every moderator of the scenario's prompts, in their order. Raises ContentRefused, ModerationDown."""
        names = self._config.scenarios[who.scenario].moderate_prompt
        texts = await said(asked, tokens) if names else []
        for name in names if texts else ():
            moderator = self._named(name)
            if isinstance(moderator, External):
                category = await moderator.judge(texts)
            else:
                category = await self.search(moderator, texts)
            if category is None:
                continue
            settings = self._config.moderation[name]
            self._found(who, name, "prompt", category)
            if settings.action == "block":
                raise ContentRefused(f"The prompt was refused by the moderation of this service: {category}")

    async def search(self, rules: RuleFiles, texts: list[str]) -> str | None:
        """Look for the first match in texts; its category."""
        if sum(map(len, texts)) <= OFF_LOOP_CHARS:
            return _search(rules, texts)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _search, rules, texts)

    # ---- answers -----------------------------------------------------------------------------------------------------

    def guarded(self, answer: Answer, relay: Ends, who: Who) -> Guarded | None:
        """Put guards before an answer's sinks; None where nobody watches over the scenario's answers."""
        names = self._config.scenarios[who.scenario].moderate_answer
        if not names:
            return None

        def chain(guard: ChoiceGuard) -> Sink:
            sink: Sink = guard
            for name in reversed(names):
                sink = self._stage(name, sink, guard, who)
            return sink

        return Guarded(answer, relay, chain)

    def _stage(self, name: str, sink: Sink, guard: ChoiceGuard, who: Who) -> Sink:
        moderator = self._named(name)
        blocks = self._config.moderation[name].action == "block"

        def found(category: str) -> None:
            self._found(who, name, "answer", category)
            if blocks:
                guard.stop()

        if isinstance(moderator, External):
            stage = JudgeStage(moderator, sink, found, guard.fail, self._tasks, hold=blocks)
            guard.own(stage)
            return stage
        return RuleStage(moderator, sink, found) if blocks else RuleWatch(moderator, sink, found)

    # ---- both --------------------------------------------------------------------------------------------------------

    def _named(self, name: str) -> Moderator:
        return self._rules.get(name) or self._services[name]

    def _found(self, who: Who, name: str, text: str, category: str) -> None:
        label = category if name in self._rules else EXTERNAL
        action = self._config.moderation[name].action
        self._report.found(who, name, category=category, label=label, action=action, text=text)

    # ---- over time ---------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Notice changed files."""
        while True:
            await asyncio.sleep(LOOK_S)
            for rules in list(self._rules.values()):
                await asyncio.to_thread(rules.refresh)

    async def _prepare(self, config: Config) -> Callable[[], None]:
        """See Reloading. A file that cannot be used refuses the reload; streams that run see the new rules."""
        # scenarios change at the next start, so the moderators that they name now stay until then
        used = {name for one in config.scenarios.values() for name in (*one.moderate_prompt, *one.moderate_answer)}
        kept = {name: self._config.moderation[name] for name in used - config.moderation.keys()}
        config = replace(config, moderation=config.moderation | kept)
        fresh = await asyncio.to_thread(_read, config)
        clients = self._clients(config)

        def apply() -> None:
            for name, rules in fresh.items():
                if name in self._rules:
                    self._rules[name].take(rules)
            for name, client in clients.items():
                if name in self._services:
                    self._services[name].take(client)
            self._rules = {name: self._rules.get(name, rules) for name, rules in fresh.items()}
            self._retired += [client for name, client in self._services.items() if name not in clients]
            self._services = {name: self._services.get(name, client) for name, client in clients.items()}
            self._config = config

        return apply

    def _clients(self, config: Config) -> dict[str, External]:
        return {name: External(name, one, self._report) for name, one in _of(config, "http").items()}

    async def _close(self) -> None:
        for service in (*self._services.values(), *self._retired):
            await service.close()


def _of(config: Config, kind: str) -> dict[str, ModeratorSettings]:
    return {name: one for name, one in config.moderation.items() if one.kind == kind}


def _read(config: Config) -> dict[str, RuleFiles]:
    return {name: RuleFiles(name, one) for name, one in _of(config, "rules").items()}


def _search(rules: RuleFiles, texts: list[str]) -> str | None:
    for text in texts:
        scanner = Scanner(rules)
        for start in range(0, len(text), SLICE_CHARS):
            scanner.feed(text[start : start + SLICE_CHARS])
            if scanner.match is not None:
                return scanner.match.category
        scanner.finish()
        if scanner.match is not None:
            return scanner.match.category
    return None
