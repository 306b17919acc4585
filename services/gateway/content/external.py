"""Asks a service that judges texts, in the shape of OpenAI's moderation API.

Owns the bound on questions under way, their deadline, and the breaker that stops asking a service which does not
answer. What a missing judgment means is the configuration's choice: the text is refused, or goes through.
"""

import asyncio
import logging
import re
import time
from typing import Final

import aiohttp
import msgspec

from services.gateway.content.report import Report
from shared.config import ModeratorSettings
from shared.errors import ModerationDown

MAX_ANSWER_BYTES: Final = 1 << 20
BREAK_AFTER: Final = 5
"""Failures in a row, after which nothing is asked for a while."""
PAUSE_S: Final = 5.0
_CATEGORY: Final = re.compile(r"^[a-z0-9][a-z0-9_/-]{0,63}\Z")
UNNAMED: Final = "flagged"
"""The category of what a service flags without a category, or with one that is no name."""

log = logging.getLogger(__name__)


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool | None] = {}


class _Judgment(msgspec.Struct):
    results: list[_Result]


class _Failed(Exception):
    """Raised where no judgment was to be had; the text says why."""


class External:
    """One service. `judge` may be called from any number of tasks."""

    def __init__(self, name: str, settings: ModeratorSettings, report: Report) -> None:
        self.name = name
        self.settings = settings
        self._report = report
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._failures = 0
        self._again_at = 0.0

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def take(self, other: "External") -> None:
        """Go on under newer settings."""
        self.settings = other.settings
        self._places, self._failures = asyncio.Semaphore(self.settings.max_concurrent), 0

    async def judge(self, texts: list[str]) -> str | None:
        """Say which category texts are flagged with; None: with none. Raises ModerationDown."""
        started = time.monotonic()
        try:
            category = await self._asked(texts)
        except _Failed as error:
            self._report.failed(self.name, self.settings.on_error)
            log.warning("no judgment", extra={"moderator": self.name, "why": str(error)})
            if self.settings.on_error == "allow":
                return None
            raise ModerationDown("the text could not be checked by the moderation service; try again later") from None
        finally:
            self._report.judged(self.name, time.monotonic() - started)
        return category

    async def _asked(self, texts: list[str]) -> str | None:
        now = time.monotonic()
        if self._failures >= BREAK_AFTER:
            if now < self._again_at:
                raise _Failed(f"not asked: it failed {self._failures} times in a row")
            self._again_at = now + PAUSE_S  # this question finds out; the others wait for its outcome
        asked = False
        try:
            async with asyncio.timeout(self.settings.timeout_s), self._places:
                asked = True
                category = await self._post(texts)
        except TimeoutError:
            if asked:  # otherwise it is our crowd that is slow, and no reason to leave the service alone
                self._count()
            raise _Failed(f"no answer in {self.settings.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, _Failed) as error:
            self._count()
            raise _Failed(str(error) or type(error).__name__) from None
        self._failures = 0
        return category

    def _count(self) -> None:
        self._failures += 1
        self._again_at = time.monotonic() + PAUSE_S

    async def _post(self, texts: list[str]) -> str | None:
        settings = self.settings
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        body = {"input": texts} | ({"model": settings.model} if settings.model else {})
        headers = {"content-type": "application/json"}
        if settings.api_key:
            headers["authorization"] = f"Bearer {settings.api_key}"
        data = msgspec.json.encode(body)
        async with self._session.post(settings.url, data=data, headers=headers, allow_redirects=False) as response:
            if response.status != 200:  # noqa: PLR2004
                raise _Failed(f"it answered {response.status}")
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES:
                    raise _Failed(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        return _category(bytes(answer), len(texts))


def _category(answer: bytes, texts: int) -> str | None:
    try:
        results = msgspec.json.decode(answer, type=_Judgment).results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Failed(f"its answer is no moderation: {error}") from None
    if len(results) != texts:
        raise _Failed(f"it judged {len(results)} texts of {texts}")
    for result in results:
        if result.flagged:
            named = (name for name, holds in result.categories.items() if holds and _CATEGORY.match(name))
            return next(named, UNNAMED)
    return None
