"""`baton status`: what Redis holds of the fleet, checked against the leases. Changes nothing."""

from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from services.commands.access import Access
from shared import keys
from shared.errors import LinkLost, MalformedMessage
from shared.messages import InstanceRecord, ScenarioMap, decode
from shared.report import Report, report

T = TypeVar("T")


def inspect(access: Access) -> Report:
    """Read the fleet's state. Raises LinkLost when Redis does not answer."""
    seconds = access.redis.timeout_s
    try:
        with Redis.from_url(
            access.redis.url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        ) as redis:
            records = _values(redis, keys.instance("*"), InstanceRecord)
            leased = {record.id for record in records if redis.exists(keys.lease(record.id))}
            maps = _values(redis, keys.scenario_map("*"), ScenarioMap)
    except RedisError as error:
        raise LinkLost(f"Redis does not answer ({error}); is the cluster running?") from error
    return report(records, leased, maps)


def _values(redis: "Redis", pattern: str, kind: type[T]) -> list[T]:
    found: list[T] = []
    for key in redis.scan_iter(match=pattern, count=1000):
        data = redis.get(key)
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
    lines += [
        f"scenario {one['name']}: map version {one['version']}, ratio {one['ratio']} (prefill:decode)"
        for one in fleet["scenarios"]
    ]
    return "\n".join(lines) + "\n"
