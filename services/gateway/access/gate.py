"""The gate: from a credential to a caller, from a caller to a grant.

Owns whether a key is asked for; once it was, it always is. Knows neither HTTP nor NATS, and nothing of what is asked
but its size.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Final

from services.gateway.access.caller import Caller, Grant
from services.gateway.access.keyring import Keyring
from services.gateway.access.ledger import SCRIPTS, Ledger
from services.gateway.access.line import Line
from services.gateway.access.rules import Rules
from services.gateway.access.scripts import sha
from services.gateway.access.tokens import Tokens, looks_like_one
from shared.config import DEFAULT_TENANT, Config
from shared.errors import BatonError, Cancelled, LimitReached, Unauthorised
from shared.instance import Instance
from shared.policy.limits import Limits, Need
from shared.reloading import Apply
from shared.tasks import AGAIN_S
from shared.tenancy import audit
from shared.tenancy.api_key import digest, split
from shared.tenancy.register import USED

END_S: Final = 2.0


class Gate:
    """One per gateway; `open_gate` makes it."""

    def __init__(self, gateway: str, config: Config) -> None:
        self.rules = Rules(config)
        self.line = Line(config.redis, (*SCRIPTS, USED))
        self.ledger = Ledger(gateway, self.line)
        self.keyring = Keyring(gateway, self.line, config.redis, config.gateway.key_stale_s, sha(USED))
        self.tokens = Tokens(config.gateway.jwt) if config.gateway.jwt.configured else None
        self._strangers = audit.Strangers()
        self._asked = False  # for keys, once

    @property
    def asks(self) -> bool:
        """Whether a key is needed. What has once asked for keys goes on asking."""
        if self.rules.auth == "none":
            return False
        self._asked = self._asked or self.rules.auth == "keys" or self.rules.needs_key or self.keyring.ever
        return self._asked

    async def identify(self, credential: str) -> Caller:
        """Say who a client is. Raises Unauthorised, or LinkLost where that cannot be told now."""
        rules = self.rules
        if rules.auth == "none":
            return rules.anyone
        try:
            return await self._identify(credential) or self._stranger()
        except Unauthorised as error:
            parts = split(credential)
            self._strangers.note(str(error), key=parts[0] if parts else "", given=bool(credential))
            raise

    def _stranger(self) -> Caller:
        if self.asks:
            raise Unauthorised
        return self.rules.anyone

    async def _identify(self, credential: str) -> Caller | None:
        """Say whose a credential is; None: nobody's. Raises Unauthorised where more can be said, and LinkLost."""
        rules = self.rules
        if not credential:
            return None
        if rules.static and (name := rules.is_static(credential)):
            return rules.caller(DEFAULT_TENANT, name, None)
        parts = split(credential)
        if parts is not None:
            key = await self.keyring.find(parts[0])
            if key is None or not key.opens(digest(parts[1])):
                return None
            if (state := key.state(time.time())) != "active":
                raise Unauthorised(f"This API key is {state}; ask for another one")
            self.keyring.used(key.id)
            return rules.caller(key.tenant, key.id, key.scenarios)
        if self.tokens is not None and looks_like_one(credential):
            who = await self.tokens.identify(credential)
            return rules.caller(who.tenant, who.id, who.scenarios)
        return None

    def check(self, caller: Caller, scenario: str) -> None:
        """Turn away who is certainly over its limit of requests, before any work is done. Raises LimitReached."""
        limits = self.rules.limits(caller.tenant)
        if limits is not None and limits.requests:
            with self._told(caller, scenario):
                self.ledger.check(caller.tenant, limits)

    async def admit(
        self,
        caller: Caller,
        scenario: str,
        prompt_tokens: int,
        new_tokens: int,
        *,
        choices: int = 1,
        bounded: bool = True,
    ) -> Grant:
        """Take a request's share: `new_tokens` is what it may generate at most. Raises LimitReached, NeverFits.

        Where the client did not bound its answer, less is set aside than it may become; the rest is charged at the end.
        """
        limits = self.rules.limits(caller.tenant)
        if limits is None:
            return Grant(caller, {}, scenario)
        if not bounded:
            room = max(1, limits.tokens - prompt_tokens) if limits.tokens else new_tokens
            new_tokens = min(new_tokens, choices * self.rules.tenant(caller.tenant).answer_tokens, room)
        need = Need(prompt_tokens + new_tokens, choices if limits.streams else 1)
        return await self._share(caller, scenario, limits, need)

    def counted(self, caller: Caller, scenario: str) -> AbstractAsyncContextManager[Grant]:
        """Count what generates nothing as one request, without tokens or a stream. Raises LimitReached."""
        limits, grant = self.rules.limits(caller.tenant), Grant(caller, {}, scenario)
        if limits is None and not caller.key_id:  # nothing to count and nothing to write down
            return nullcontext(grant)
        return self._counted(grant, limits)

    @asynccontextmanager
    async def _counted(self, grant: Grant, limits: Limits | None) -> AsyncIterator[Grant]:
        if limits is not None:
            grant = await self._share(grant.caller, grant.scenario, limits, Need(0, 0))
        try:
            yield grant
        except BaseException as error:
            self.settle(grant, 0, 0, _ending(error))
            raise
        self.settle(grant, 0, 0)

    async def _share(self, caller: Caller, scenario: str, limits: Limits, need: Need) -> Grant:
        with self._told(caller, scenario):
            return await self.ledger.admit(caller, scenario, limits, need)

    @contextmanager
    def _told(self, caller: Caller, scenario: str) -> Iterator[None]:
        """Write down that a limit turned a caller away."""
        try:
            yield
        except LimitReached as error:
            self._strangers.note(str(error.code), key=caller.key_id, tenant=caller.tenant, scenario=scenario)
            raise

    def settle(self, grant: Grant, prompt_tokens: int, new_tokens: int, error: BatonError | None = None) -> None:
        """Give back what a request that has ended did not use, and write down that its key was used. Idempotent."""
        if grant.settled:
            return
        self.ledger.settle(grant, prompt_tokens + new_tokens)
        grant.settled = True
        if error is not None and grant.headers:
            error.headers = {**grant.headers, **error.headers}
        if grant.caller.key_id:
            outcome = str(error.code) if error is not None else "ok"
            used = {"prompt_tokens": prompt_tokens, "completion_tokens": new_tokens}
            audit.note(
                "key.used",
                key=grant.caller.key_id,
                tenant=grant.caller.tenant,
                scenario=grant.scenario,
                outcome=outcome,
                **used,
            )

    def forbidden(self, caller: Caller, scenario: str) -> None:
        """Write down that a key was used where it may not be."""
        self._strangers.note("permission_error", key=caller.key_id, tenant=caller.tenant, scenario=scenario)

    async def prepare(self, config: Config) -> Apply:
        """Take changed tenants and keys while running."""
        return partial(self._take, Rules(config))

    def _take(self, rules: Rules) -> None:
        self._asked = self.asks  # the last configured key may go with the rules that stood until now
        self.rules = rules


def _ending(error: BaseException) -> BatonError:
    if isinstance(error, BatonError):
        return error
    return Cancelled() if isinstance(error, asyncio.CancelledError) else BatonError()


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancel, again where the Redis client swallowed it (see Tasks.close), and wait within a bound."""
    waiting, give_up = set(tasks), time.monotonic() + END_S
    while waiting and time.monotonic() < give_up:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)


async def open_gate(instance: Instance, stack: AsyncExitStack) -> Gate:
    """Make the gate and start what it needs. Raises LinkLost, ConfigError."""
    config = instance.config
    gate = Gate(instance.id, config)
    if config.gateway.audit_file:
        lines = audit.Lines()
        lines.open_file(config.gateway.audit_file, instance=instance.id)
        stack.callback(lines.close)
    if gate.tokens is not None:
        stack.push_async_callback(gate.tokens.close)
        gate.tokens.keys.prepare()
    stack.push_async_callback(gate.line.close)
    stack.push_async_callback(gate.keyring.close)
    gate.line.on_up = gate.ledger.catch_up
    follows = config.gateway.auth != "none"
    if follows:
        await gate.keyring.catch_up()
    work = [("line to Redis", gate.line.run()), ("renewal of grants", gate.ledger.run())]
    if follows:
        work.append(("changes of keys", gate.keyring.follow()))
    tasks = [instance.vital.spawn(coroutine, name=name) for name, coroutine in work]
    stack.push_async_callback(_end, tasks)
    stack.push_async_callback(gate.line.flushed)  # what was held goes back to its tenants
    instance.reloading.add(gate.prepare, "tenant", "gateway.api_keys")
    instance.telemetry.expose("baton_gateway_limits", gate.ledger.counts)
    instance.telemetry.expose("baton_gateway_keys", gate.keyring.counts)
    instance.telemetry.expose("baton_gateway_redis", gate.line.counts)
    return gate
