"""What Redis holds for the monitor: records, leases, maps. Reads all, writes maps and failures. Decides nothing.

Every method raises Unavailable when Redis does not answer; what it did then is unknown, and all of it can be repeated.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import MalformedMessage, Unavailable
from shared.messages import Epoch, InstanceRecord, Role, ScenarioMap, State, Status, decode, encode

T = TypeVar("T")

# Compare-and-set: a map gives way only to one of a later leader, or of a later version of the same leader. A value
# that is no map gives way to any. The same map again is a success: the first reply may have been lost.
WRITE_MAP = """
-- KEYS: map   ARGV: the map's bytes, boot, counter, version
local stored = redis.call('GET', KEYS[1])
if stored then
  local readable, old = pcall(cmsgpack.unpack, stored)
  if readable and type(old) == 'table' and type(old.epoch) == 'table' and tonumber(old.version) then
    local theirs = {tonumber(old.epoch[1]), tonumber(old.epoch[2]), tonumber(old.version)}
    for place = 1, 3 do
      local ours = tonumber(ARGV[place + 1])
      if theirs[place] and theirs[place] ~= ours then
        if theirs[place] > ours then return 0 end
        break
      end
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leases:
    """Who holds what, read at one moment."""

    leader: str  # owner of the leader's lease, empty when nobody holds it
    epochs: Mapping[str, Epoch | None]  # by instance; None: no lease


class Book:
    """The fleet's state in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def records(self) -> dict[str, InstanceRecord]:
        """Read every instance's record."""
        found = await self._all(keys.instance("*"), InstanceRecord)
        return {record.id: record for record in found}

    async def maps(self) -> tuple[ScenarioMap, ...]:
        """Read every scenario's map."""
        return tuple(await self._all(keys.scenario_map("*"), ScenarioMap))

    async def leases(self, leader: str, instances: Iterable[str]) -> Leases:
        """Read the leader's lease and those of the instances, all at the same moment."""
        names = list(instances)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                _ = pipe.hget(keys.lease(leader), "owner")  # a pipeline only collects
                for name in names:
                    _ = pipe.hmget(keys.lease(name), "boot", "counter")
                owner, *rows = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        epochs = {name: _epoch(row) for name, row in zip(names, rows, strict=True)}
        return Leases(owner.decode(errors="replace") if owner else "", epochs)

    async def write_map(self, scenario: ScenarioMap) -> bool:
        """Write a map, unless Redis holds a later one; False then."""
        boot, counter = scenario.epoch
        arguments = (encode(scenario), boot, counter, scenario.version)
        try:
            done = await self._redis.eval(WRITE_MAP, 1, keys.scenario_map(scenario.scenario), *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        return bool(done)

    async def write_failure(self, instance: str, epoch: Epoch, reason: str, status: Status | None) -> None:
        """Note that an instance was taken for lost, unless it has come back with a later epoch."""
        key = keys.instance(instance)
        try:
            stored = await self._redis.get(key)
            record = _record(stored, instance, status)
            if record.epoch > epoch:
                return
            failed = msgspec.structs.replace(record, state=State.FAILED, reason=reason)
            await self._redis.set(key, encode(failed), px=keys.RECORD_TTL_MS)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error

    async def _all(self, pattern: str, kind: type[T]) -> list[T]:
        try:
            names = [name async for name in self._redis.scan_iter(match=pattern, count=1000)]
            values = await self._redis.mget(names) if names else []
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        return [value for value in (_read(data, kind) for data in values if data is not None) if value is not None]


def _read(data: bytes | str, kind: type[T]) -> T | None:
    try:
        value: T = decode(data if isinstance(data, bytes) else data.encode(), kind)
    except MalformedMessage as error:
        log.warning("a value in Redis is not ours", extra={"error": str(error)})
        return None
    return value


def _epoch(row: list[Any]) -> Epoch | None:
    try:
        return (int(row[0]), int(row[1]))
    except (TypeError, ValueError):
        return None


def _record(stored: bytes | str | None, instance: str, status: Status | None) -> InstanceRecord:
    record = _read(stored, InstanceRecord) if stored is not None else None
    if record is not None:
        return record
    if status is None:
        return InstanceRecord(instance, Role.STANDBY, State.FAILED, (0, 0))
    return InstanceRecord(instance, status.role, status.state, status.epoch, status.scenario, status.group)
