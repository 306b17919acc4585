"""`baton keys`: makes, lists and revokes API keys. A key is shown once, when it is made, and kept nowhere.

Talks to Redis alone; the gateways hear of every change from there.
"""

import asyncio
import getpass
import re
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from services.commands.access import Access
from services.commands.inspection import inspect
from shared.errors import BadRequest, DeadlineExceeded, LinkLost
from shared.messages import Role, State
from shared.tenancy.api_key import ID_FORM, ApiKey, make, split
from shared.tenancy.register import Register, not_older, open_register

HEARD_S: Final = 20.0
"""For every gateway to hear of a change; they listen for it all the time."""
LONGEST_SHOWN: Final = len("bt-") + 12
"""What is longer may hold a part of a secret."""
LONGEST_S: Final = 3650 * 86_400
_SPAN: Final = re.compile(r"^(\d{1,9})([smhdw])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LIVING: Final = {State.READY.value, State.DRAINING.value}

T = TypeVar("T")


def lifetime(text: str) -> int:
    """Read a time like 30d in seconds. Raises BadRequest."""
    found = _SPAN.match(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_S:
        raise BadRequest(f"{text!r} is no time like 90m, 12h, 30d or 4w, of at most ten years")
    return seconds


def create(
    access: Access, tenant: str, scenarios: list[str], *, expires: str | None, name: str, wait: bool
) -> tuple[ApiKey, str]:
    """Make a key; returns what is kept of it and the key itself. Raises BadRequest, LinkLost."""
    seconds = lifetime(expires) if expires else 0
    kept, key = make(tenant, scenarios, now=int(time.time()), lifetime_s=seconds, name=name)

    async def work(register: Register) -> None:
        if name:
            await _refuse_second(register, tenant, name)
        entry = await register.create(kept, _who())
        if wait:
            try:
                await _heard(access, register, entry)
            except (DeadlineExceeded, LinkLost) as error:
                raise type(error)(f"{error} {await _withdrawn(register, kept.id)}") from error
            except BaseException:  # Ctrl-C
                await _withdrawn(register, kept.id)
                raise

    _with_register(access, work)
    return kept, key


async def _withdrawn(register: Register, key_id: str) -> str:
    """Revoke a key that nobody was shown, so that the command may be run again; say what became of it."""
    try:
        await register.revoke(key_id, _who())
    except LinkLost:
        return f"Key {key_id} was made and shown to nobody; revoke it."
    return f"The new key {key_id} was revoked, since nobody was shown it."


def unknown_scenarios(access: Access, scenarios: list[str]) -> list[str]:
    """Name those of these scenarios that the cluster does not serve now; none where that cannot be told."""
    if not scenarios:
        return []
    try:
        served = {one["name"] for one in inspect(access)["scenarios"]}
    except LinkLost:
        return []  # it is said beside a key that was made, and which must be shown
    return [name for name in scenarios if name not in served]


def revoke(access: Access, given: str, *, wait: bool) -> str:
    """Revoke a key and say what happened; one that was revoked stays so. Raises BadRequest, LinkLost."""
    parts = split(given)
    key_id = parts[0] if parts else given
    if not ID_FORM.match(key_id):
        shown = repr(given) if len(given) <= LONGEST_SHOWN else "This"  # it may be a key with a slip in it
        raise BadRequest(f"{shown} is no id of a key; `baton keys list` shows the ids.")

    async def work(register: Register) -> str:
        entry = await register.revoke(key_id, _who())
        if entry is None:
            raise BadRequest(f"There is no key {key_id}; `baton keys list` lists those there are.")
        if wait:
            await _heard(access, register, entry or await register.last())
        return f"{key_id} is revoked" if entry else f"{key_id} was revoked already"

    return _with_register(access, work)


def listed(access: Access) -> list[dict[str, Any]]:
    """Describe every key, the oldest first. Raises LinkLost."""

    async def work(register: Register) -> list[ApiKey]:
        return await register.all()

    now = time.time()
    return [
        {
            "id": key.id,
            "tenant": key.tenant,
            "name": key.name,
            "scenarios": sorted(key.scenarios) if key.scenarios is not None else None,
            "state": key.state(now),
            "created": _iso(key.created),
            "expires": _iso(key.expires),
            "revoked": _iso(key.revoked),
            "last_used": _iso(key.used),
        }
        for key in _with_register(access, work)
    ]


def table(entries: list[dict[str, Any]]) -> str:
    """Lay the keys out for people."""
    head = ("ID", "TENANT", "NAME", "SCENARIOS", "STATE", "CREATED", "EXPIRES", "LAST USED")
    rows = [
        (
            *(one["id"], one["tenant"], one["name"] or "-"),
            ",".join(one["scenarios"]) if one["scenarios"] is not None else "all",
            *(one["state"], one["created"], one["expires"] or "never", one["last_used"] or "never"),
        )
        for one in entries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in (head, *rows))


async def _refuse_second(register: Register, tenant: str, name: str) -> None:
    """A command that is run again must not leave a second key behind that nobody knows of."""
    now = time.time()
    for key in await register.all():
        if (key.tenant, key.name, key.state(now)) == (tenant, name, "active"):
            raise BadRequest(
                f"{tenant} has a key named {name!r} already, {key.id}; revoke that one first, or give another --name."
            )


async def _heard(access: Access, register: Register, entry: str) -> None:
    """Return once every gateway that lives has heard of a change. Raises DeadlineExceeded."""
    late: list[str] = []
    try:
        async with asyncio.timeout(HEARD_S):
            while late := await _late(access, register, entry):  # noqa: ASYNC110  it is in Redis
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DeadlineExceeded(f"{', '.join(late)} did not hear of it within {HEARD_S:.0f} s; is it done?") from None


async def _late(access: Access, register: Register, entry: str) -> list[str]:
    report = await asyncio.to_thread(inspect, access)
    gateways = {one["id"]: one["state"] for one in report["instances"] if one["role"] == Role.GATEWAY}
    living = {name for name, state in gateways.items() if state in _LIVING}
    heard = await register.heard()
    for gone in set(heard) - set(gateways):  # not those that start: they listen already, and say so once
        await register.forget_gateway(gone)
    return sorted(one for one in living if one not in heard or not not_older(heard[one], entry))


def _with_register(access: Access, work: Callable[[Register], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with open_register(access.redis) as register:
            return await work(register)

    return asyncio.run(run())


def _who() -> str:
    """Say who gives the command, for the audit log."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user id without a name
        return f"?@{socket.gethostname()}"


def _iso(seconds: int) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None
