"""The API keys that this gateway knows: looked up in Redis once, then followed by the stream of changes.

Owns a bounded memory of keys and of ids that are no keys. A change is heard at once. While Redis does not answer, what
is known goes on for `gateway.key_stale_s`; what is not known is not let in, nor called wrong.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from services.gateway.access.line import Line
from shared import keys
from shared.config import RedisSettings
from shared.errors import BatonError, LinkLost
from shared.redis_client import open_redis_client
from shared.tenancy import audit
from shared.tenancy.api_key import ApiKey
from shared.tenancy.register import not_older

KNOWN: Final = 8192
FRESH_S: Final = 60.0
"""A key is read again after so long, should a change of it have been made past the register."""
UNKNOWN_S: Final = 5.0
"""For so long an id that is no key is not looked up again."""
LISTEN_MS: Final = 2000
"""A change is heard at once. So often it is looked whether Redis is still the one that was listened to."""
RETRY_S: Final = 0.25
USED_S: Final = 60.0
"""How exactly it is kept when a key was last used."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """What is known of one id. `sure`: nothing has changed since it was read."""

    key: ApiKey
    read_at: float
    sure: bool
    used_at: float


@dataclass(slots=True)
class Counts:
    """Since start; read at each scrape."""

    lookups: int = 0
    changes: int = 0
    stale: int = 0  # answered from memory while Redis did not answer


class Keyring:
    """One per gateway. `follow` is a task of its owner."""

    def __init__(self, gateway: str, line: Line, settings: RedisSettings, stale_s: float, used_sha: str) -> None:
        self.counts = Counts()
        self.ever = False
        """Whether any key was ever made. Once true it stays so, whatever Redis says later."""
        self._gateway = gateway
        self._line = line
        self._stale_s = stale_s
        self._used_sha = used_sha
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        # apart, so that whoever tries many ids does not drive the good ones out
        self._unknown: OrderedDict[str, float] = OrderedDict()  # until when
        self._heard = "0-0"
        self._changes = 0  # heard, or missed
        self._in_step = False  # with the stream: an entry that is sure needs no asking
        patience = LISTEN_MS / 1000 + min(1.0, settings.timeout_s)
        self._client = open_redis_client(settings.url, patience)

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key of an id, None where there is none. Raises LinkLost when that cannot be told now."""
        now = time.monotonic()
        entry = self._entries.get(key_id)
        if self._in_step and entry is not None and entry.sure and now - entry.read_at < FRESH_S:
            return entry.key
        if self._in_step and self._unknown.get(key_id, 0.0) > now:
            return None
        before = self._changes
        try:
            fields = await self._line.ask("HGETALL", keys.api_key(key_id))
        except BatonError as error:
            if entry is None or now - entry.read_at > self._stale_s:
                raise LinkLost("API keys cannot be checked now, since Redis does not answer; try again soon") from error
            self.counts.stale += 1
            return entry.key
        self.counts.lookups += 1
        key = ApiKey.read(key_id, fields)
        self._remember(key_id, key, now, sure=before == self._changes)
        return key

    def used(self, key_id: str) -> None:
        """Note that a key has let somebody in."""
        now = time.monotonic()
        entry = self._entries.get(key_id)
        if entry is None or now - entry.used_at < USED_S:
            return
        entry.used_at = now
        try:
            _ = self._line.send("EVALSHA", self._used_sha, 1, keys.api_key(key_id), int(time.time()))
        except BatonError:
            return  # it is used often enough, or else it hardly matters

    def _remember(self, key_id: str, key: ApiKey | None, now: float, *, sure: bool) -> None:
        """Keep an answer; not `sure` when a change came while it was on its way, which may be newer."""
        if key is None:
            self._entries.pop(key_id, None)
            if sure:
                _keep(self._unknown, key_id, now + UNKNOWN_S)
            return
        self.ever = True
        _keep(self._entries, key_id, Entry(key, now, sure, key.used - time.time() + now))

    # ---- changes -----------------------------------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Learn whether keys were ever made, and from which change on to listen. Raises LinkLost."""
        try:
            await self._look()
        except (RedisError, OSError, TimeoutError) as error:
            raise LinkLost(f"Redis does not answer ({error}); whether keys are asked for is not known") from error

    async def follow(self) -> None:
        """Hear of changes, for ever."""
        while True:
            try:
                if not self._in_step:
                    await self._look()
                for _, entries in _pairs(await self._client.xread({keys.API_KEYS: self._heard}, block=LISTEN_MS)):
                    self._take(entries)
                    await self._client.hset(keys.KEYS_HEARD, self._gateway, self._heard)
                newest = await self._newest()
                if newest != self._heard and not not_older(newest, self._heard):
                    self._doubt()  # Redis was flushed, or an older copy of it answers
            except (RedisError, OSError, TimeoutError) as error:
                if self._in_step:
                    log.warning("changes of keys are not heard now", extra={"error": str(error)})
                self._doubt()
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Hang up, and let nobody wait for this gateway to hear of changes."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._client.hdel(keys.KEYS_HEARD, self._gateway)
        await self._client.aclose()

    async def _look(self) -> None:
        """Begin at the newest change; whatever was known before it is doubtful."""
        newest = await self._newest()
        self._changes += 1
        for entry in self._entries.values():
            entry.sure = False
        self._unknown.clear()
        self._heard, self._in_step = newest, True
        if newest != "0-0":
            self.ever = True
            await self._client.hset(keys.KEYS_HEARD, self._gateway, newest)

    async def _newest(self) -> str:
        found: Any = await self._client.xrevrange(keys.API_KEYS, count=1)
        return str(found[0][0].decode()) if found else "0-0"

    def _take(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for name, fields in entries:
            said = {key.decode(): value.decode() for key, value in fields.items()}
            self.ever = True
            self.counts.changes += 1
            self._changes += 1
            self._entries.pop(said.get("id", ""), None)
            self._unknown.pop(said.get("id", ""), None)
            self._heard = name.decode()
            about = {"key": said.get("id", ""), "tenant": said.get("tenant", ""), "by": said.get("by", "")}
            audit.note(f"key.{said.get('what', 'changed')}", **about)

    def _doubt(self) -> None:
        """Ask for every key again: changes may have been missed."""
        self._in_step = False
        self._changes += 1


def _keep(memory: OrderedDict[str, T], name: str, value: T) -> None:
    memory[name] = value
    memory.move_to_end(name)
    if len(memory) > KNOWN:
        memory.popitem(last=False)


def _pairs(reply: Any) -> list[tuple[Any, list[tuple[bytes, dict[bytes, bytes]]]]]:  # noqa: ANN401  a reply
    """Take the answer to XREAD, whose form is the protocol version's: nothing, a list or a map."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return [(name, [pair for part in parts for pair in part]) for name, parts in reply.items()]
    return list(reply)
