"""What tenants hold of their limits: counted in Redis for all gateways together, and here alone while Redis is away.

Owns the open grants of this gateway, their renewal, and what still has to be given back. Every grant is settled once,
whatever becomes of its request; one whose gateway dies lapses by itself.
"""

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from services.gateway.access.caller import Caller, Grant
from services.gateway.access.line import Command, Line
from services.gateway.access.quota import rate_headers, refusal
from services.gateway.access.scripts import ADMIT, RENEW, SETTLE, sha
from shared import keys
from shared.errors import BatonError
from shared.policy.limits import Account, Levels, Limit, Limits, Need, Shortage, shortage

LAPSE_S: Final = 12.0
"""A stream that its gateway has not renewed for so long counts no more."""
RENEW_S: Final = 3.0
RENEWED_AT_ONCE: Final = 1000
KNOWN: Final = 10_000
"""Tenants whose last levels are remembered, for when Redis goes away."""
SURE_US: Final = 2_000
"""By how much our clock and Redis' may part between two answers of it."""
_ADMIT: Final = sha(ADMIT)
_SETTLE: Final = sha(SETTLE)
_RENEW: Final = sha(RENEW)
SCRIPTS: Final = (ADMIT, SETTLE, RENEW)
_LAPSE_US: Final = str(int(LAPSE_S * 1_000_000))


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    admitted: int = 0
    refused: int = 0
    local: int = 0  # decided by this gateway alone, since Redis did not answer
    lapsed: int = 0  # not given back in time


class Ledger:
    """One per gateway. `run` is a task of its owner."""

    def __init__(self, gateway: str, line: Line) -> None:
        self.counts = Counts()
        self._line = line
        self._prefix = f"{gateway}:{time.time_ns():x}"
        self._numbers = itertools.count()  # of what may stand in Redis; none is used again
        self._open: dict[str, dict[str, Grant]] = {}  # by tenant and id
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._owed: deque[tuple[float, Command]] = deque()

    def check(self, tenant: str, limits: Limits) -> None:
        """Refuse what `admit` would certainly refuse, without asking Redis. Raises LimitReached."""
        account = self._accounts.get(tenant)
        if account is None:
            return
        short, levels = account.requests_left(limits, _now_us())
        if short is not None and short.wait_us > SURE_US:
            self.counts.refused += 1
            raise refusal(tenant, limits, levels, Need(0, 0), short)

    async def admit(self, caller: Caller, scenario: str, limits: Limits, need: Need) -> Grant:
        """Take a request's share of every limit, or nothing. Raises LimitReached, NeverFits."""
        grant = Grant(caller, {}, scenario, limits, self._name(), need.streams, need.tokens)
        fits, levels = await self._take(grant, need)
        if not fits:
            self.counts.refused += 1
            short = shortage(limits, levels, need) or Shortage(Limit.STREAMS, 0)
            raise refusal(caller.tenant, limits, levels, need, short)
        self.counts.admitted += 1
        grant.headers = rate_headers(limits, levels)
        if grant.streams:
            self._open.setdefault(caller.tenant, {})[grant.id] = grant
        return grant

    def settle(self, grant: Grant, used_tokens: int) -> None:
        """Give back what a request that has ended did not use. Idempotent."""
        limits = grant.limits
        if limits is None or grant.settled:
            return
        grant.settled = True
        if not grant.streams:
            return
        tenant = grant.caller.tenant
        mine = self._open.get(tenant, {})
        mine.pop(grant.id, None)
        if not mine:
            self._open.pop(tenant, None)
        unused = grant.tokens - used_tokens
        self._account(tenant).settle(limits, unused, _now_us())  # until Redis says how it is, or while it is away
        if not grant.local:
            self._give_back(_settlement(grant, limits, unused))

    async def run(self) -> None:
        """Renew what is open and give back what could not be given back at once, for ever."""
        while True:
            await asyncio.sleep(RENEW_S)
            self.catch_up()

    def catch_up(self) -> None:
        """Give back what is still owed, unless it has lapsed meanwhile, and renew what is open."""
        for _ in range(len(self._owed)):
            until, command = self._owed.popleft()
            if time.monotonic() < until:
                self._give_back(command, until)
            else:
                self.counts.lapsed += 1
        self._renew()

    def _name(self) -> str:
        return f"{self._prefix}:{next(self._numbers)}"

    # ---- one request -------------------------------------------------------------------------------------------------

    async def _take(self, grant: Grant, need: Need) -> tuple[bool, Levels]:
        tenant, limits = grant.caller.tenant, grant.limits or Limits()
        if not self._line.down:
            asked_us = _now_us()
            names = (keys.tenant_rates(tenant), keys.tenant_streams(tenant))
            amounts = (need.streams, need.tokens, limits.requests, limits.tokens, limits.streams, _LAPSE_US)
            try:
                reply = self._line.send("EVALSHA", _ADMIT, 2, *names, grant.id, *amounts)
            except BatonError:
                return self._take_alone(grant, limits, need)
            try:
                taken, requests, tokens, streams = await reply
            except BaseException as error:
                if grant.streams:
                    self._give_back(_settlement(grant, limits, need.tokens))  # it may have been taken
                if not isinstance(error, BatonError):
                    raise
            else:
                levels = Levels(requests, tokens, streams)
                self._remember(
                    tenant, levels, asked_us, limits
                )  # the level was taken later: rather too low than too high
                return bool(taken), levels
        return self._take_alone(grant, limits, need)

    def _take_alone(self, grant: Grant, limits: Limits, need: Need) -> tuple[bool, Levels]:
        self.counts.local += 1
        # under a name of its own: what gives the other one back may be sent again when this one stands in Redis
        grant.id, grant.local, tenant = self._name(), True, grant.caller.tenant
        held = sum(one.streams for one in self._open.get(tenant, {}).values())
        return self._account(tenant).admit(limits, need, held, _now_us())

    def _give_back(self, command: Command, until: float | None = None) -> None:
        until = until or time.monotonic() + LAPSE_S
        try:
            reply = self._line.send(*command)
        except BatonError:
            self._owed.append((until, command))
        else:
            reply.add_done_callback(lambda done: self._given(done, command, until))

    def _given(self, reply: "asyncio.Future[object]", command: Command, until: float) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self._owed.append((until, command))

    # ---- all that is open --------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Say that our streams live, those too that were let in while Redis was away: from here on it counts them.

        What ends meanwhile is settled after this, on the same line.
        """
        if self._line.down:
            return
        for tenant, grants in self._open.items():
            entries = [f"{grant.id}:{choice}" for grant in grants.values() for choice in range(grant.streams)]
            for start in range(0, len(entries), RENEWED_AT_ONCE):
                some = entries[start : start + RENEWED_AT_ONCE]
                try:
                    _ = self._line.send("EVALSHA", _RENEW, 1, keys.tenant_streams(tenant), _LAPSE_US, *some)
                except BatonError:
                    return  # the line looks for Redis itself; the next round renews
            for grant in grants.values():
                if grant.local:
                    grant.local, grant.tokens = False, 0  # nothing was set aside there: it is charged at the end

    # ---- alone -------------------------------------------------------------------------------------------------------

    def _remember(self, tenant: str, levels: Levels, at_us: int, limits: Limits | None = None) -> None:
        self._accounts[tenant] = Account(levels, at_us, limits)
        self._accounts.move_to_end(tenant)
        if len(self._accounts) > KNOWN:
            self._accounts.popitem(last=False)

    def _account(self, tenant: str) -> Account:
        if tenant not in self._accounts:
            self._remember(tenant, Levels(), _now_us())
        return self._accounts[tenant]


def _settlement(grant: Grant, limits: Limits, unused: int) -> Command:
    tenant = grant.caller.tenant
    names = (keys.tenant_rates(tenant), keys.tenant_streams(tenant))
    return ("EVALSHA", _SETTLE, 2, *names, grant.id, grant.streams, unused, limits.requests, limits.tokens)


def _now_us() -> int:
    return int(time.monotonic() * 1_000_000)
