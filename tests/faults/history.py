"""Every request of a test and what came of it, and the checker that trusts nobody (invariants I1 to I3).

Owns the record and the rules. A request that failed may have got less, never something else. Whether failing was in
order is the test's to say: `failed` lists who did.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.faults.client import Answer, ask
from tests.faults.oracle import prompt_tokens, reference


@dataclass
class Entry:
    """One request."""

    name: str
    expected: str  # the text that it gets where no fault is
    prompt_tokens: int
    answer: Answer | None = None  # None: it has not ended
    begun: Answer = field(default_factory=Answer)  # what has come so far

    @property
    def tokens(self) -> int:
        return len(self.expected)


@dataclass
class History:
    """All requests of a test, in the order in which they were submitted."""

    entries: list[Entry] = field(default_factory=list)

    async def ask(self, url: str, prompt: str, max_tokens: int, *, seed: int, **params: Any) -> Answer:
        """Submit a completion and record what comes of it."""
        temperature = params.get("temperature", 1.0)
        expected = reference(prompt, max_tokens, seed=seed, temperature=temperature)
        entry = Entry(f"{prompt[:20]!r} seed {seed}", expected, len(prompt_tokens(prompt)))
        self.entries.append(entry)
        entry.answer = await ask(url, prompt, max_tokens, seed=seed, into=entry.begun, **params)
        return entry.answer

    @property
    def completed(self) -> list[Entry]:
        """Those that ended well."""
        return [entry for entry in self.entries if entry.answer is not None and entry.answer.whole]

    @property
    def failed(self) -> list[str]:
        """Those that did not, each with its error."""
        return [
            f"{entry.name}: {entry.answer.error or 'broken'}"
            for entry in self.entries
            if entry.answer is not None and not entry.answer.whole
        ]

    async def flowing(self, requests: int, tokens: int, seconds: float = 30.0) -> None:
        """Wait until there are so many requests, and each that is open has got so many tokens."""

        def behind() -> bool:
            return any(one.answer is None and len(one.begun.events) < tokens for one in self.entries)

        async with asyncio.timeout(seconds):
            while len(self.entries) < requests or behind():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def ended(self, seconds: float = 60.0) -> None:
        """Wait until no request is open."""
        async with asyncio.timeout(seconds):
            while any(one.answer is None for one in self.entries):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def check(history: History) -> list[str]:
    """Say everything that is wrong with a history; nothing where all is as promised."""
    wrong = [f"{entry.name}: {text}" for entry in history.entries for text in _wrong(entry)]
    ids = Counter(entry.answer.request_id for entry in history.entries if entry.answer and entry.answer.request_id)
    return wrong + [f"{count} requests are called {name}" for name, count in ids.items() if count > 1]


def _wrong(entry: Entry) -> list[str]:
    answer = entry.answer
    if answer is None:
        return ["vanished: it was submitted and never ended"]
    wrong = _endings(answer) + _indexes(answer)
    if not entry.expected.startswith(answer.text):
        at = next(k for k, (a, b) in enumerate(zip(answer.text, entry.expected + "\0", strict=False)) if a != b)
        wrong.append(f"wrong text from token {at}: {answer.text[at : at + 20]!r} for {entry.expected[at : at + 20]!r}")
    if answer.whole:
        wrong += _completed(entry, answer)
    return wrong


def _completed(entry: Entry, answer: Answer) -> list[str]:
    """Check a good ending: everything came, and was counted once."""
    wrong = []
    if answer.text != entry.expected:
        wrong.append(f"a clean finish with {len(answer.text)} of {entry.tokens} tokens")
    if answer.finish_reason != "length":
        wrong.append(f"finished for {answer.finish_reason!r}")
    usage = answer.usage or {}
    counted = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if counted != (entry.prompt_tokens, entry.tokens):
        wrong.append(f"usage says {counted}, it was {(entry.prompt_tokens, entry.tokens)}")
    return wrong


def _endings(answer: Answer) -> list[str]:
    """Check that it ended once, in one way: well, with one error, or in a broken connection."""
    good, bad = len(answer.finishes), len(answer.errors)
    if good > 1 or bad > 1 or (good and bad) or answer.dones > 1:
        return [f"ended more than once: {good} finishes, {bad} errors, {answer.dones} [DONE]"]
    if answer.dones and not good and not bad:
        return ["[DONE] without a finish reason or an error"]
    return [] if good or bad or answer.broken else ["no ending at all"]


def _indexes(answer: Answer) -> list[str]:
    """Check the token indexes in the event ids: 0, 1, 2 and so on; here each token has a text of its own."""
    marks = [event.id.rpartition(":")[2] for event in answer.events]
    wrong = [f"an event without an index: {mark!r}" for mark in marks if not mark.isdecimal()]
    if wrong:
        return wrong[:1]
    for place, index in enumerate(map(int, marks)):
        if index != place:
            what = "repeated or out of order" if index < place else "lost before it"
            return [f"token {index} came in place {place}: {what}"]
    return []
