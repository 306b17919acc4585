"""`baton status`: what Redis holds of the fleet, checked against the leases. Changes nothing."""

import asyncio
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.commands.access import Access
from shared import keys
from shared.errors import LinkLost, MalformedMessage
from shared.messages import InstanceRecord, ScenarioMap, decode
from shared.redis_client import open_redis_client
from shared.report import Report, ScenarioEntry, report

T = TypeVar("T")


def inspect(access: Access) -> Report:
    """Read the fleet's state, on a loop of its own. Raises LinkLost when Redis does not answer."""
    return asyncio.run(_inspect(access))


async def _inspect(access: Access) -> Report:
    redis = open_redis_client(access.redis.url, access.redis.timeout_s)
    try:
        records = await _values(redis, keys.instance("*"), InstanceRecord)
        leased = {record.id for record in records if await redis.exists(keys.lease(record.id))}
        maps = await _values(redis, keys.scenario_map("*"), ScenarioMap)
    except (RedisError, OSError, TimeoutError) as error:
        raise LinkLost(f"Redis does not answer ({error}); is the cluster running?") from error
    finally:
        await redis.aclose()
    return report(records, leased, maps)


async def _values(redis: Redis, pattern: str, kind: type[T]) -> list[T]:
    found: list[T] = []
    async for key in redis.scan_iter(match=pattern, count=1000):
        data = await redis.get(key)
        if not isinstance(data, bytes):
            continue  # it ended meanwhile
        try:
            found.append(decode(data, kind))
        except MalformedMessage:
            continue  # of another version; not ours to judge
    return found


def table(fleet: Report) -> str:
    """Lay the report out for people."""
    head = ("ID", "ROLE", "SCENARIO", "GROUP", "STATE", "LOAD", "EPOCH", "PID", "HOST")
    rows = [
        (
            *(one["id"], one["role"], one["scenario"] or "-", one["group"] or "-", one["state"]),
            f"{one['load']}/{one['slots']}" if one["slots"] else "-",
            ".".join(map(str, one["epoch"])),
            str(one["pid"]),
            one["host"] or "-",
        )
        for one in fleet["instances"]
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
    lines += [line for one in fleet["scenarios"] for line in _scenario(one)]
    return "\n".join(lines) + "\n"


def _scenario(one: ScenarioEntry) -> list[str]:
    lines = [f"scenario {one['name']}: map version {one['version']}, ratio {one['ratio']} (prefill:decode)"]
    for group in one["groups"]:
        text = (
            f"  group {group['name']}: {group['phase']}, {len(group['prefill'])} of {group['prefills']} prefills,"
            f" {len(group['decode'])} of {group['decodes']} decodes, revision {group['revision']}"
        )
        canary = f", canary of {group['canary']} %" if group["canary"] else ""
        lines.append(text + (f", strategy {group['strategy']}" if group["strategy"] else "") + canary)
    return lines
