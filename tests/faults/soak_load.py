"""The clients of a soak: seeded, of every kind, patient; one whose gateway leaves goes on at the other.

Owns what is asked and the record of what came. Plain completions are judged by the oracle, event for event; whatever
else can be asked for, by the answer to the same before anything was hurt.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.faults.client import Answer, ask, resume
from tests.faults.history import Entry, History, check
from tests.faults.oracle import prompt_tokens, reference

USERS: Final = 8
PATIENCE_S: Final = 60.0
"""Of a client with one request, over all its connections. For a hang."""
AGAIN_S: Final = 0.2
FORM: Final = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"tags": {"type": "string"}}}},
}
FEATURES: Final[dict[str, dict[str, Any]]] = {
    "a chat": {"chat": True},
    "a greedy chat": {"chat": True, "temperature": 0},
    "two choices": {"n": 2},
    "a chat with two choices": {"chat": True, "n": 2},
    "logprobs": {"logprobs": 2},
    "chat logprobs": {"chat": True, "logprobs": True, "top_logprobs": 2},
    "stop strings that hold text back": {"stop": ["never in it " * 4, "qqqq"]},
    "a stop string that comes": {"stop": ["Z"]},
    "penalties": {"frequency_penalty": 0.8, "presence_penalty": 0.5},
    "a form": {"chat": True, "response_format": FORM},
}
LENGTHS: Final = (30, 90, 200)
Asking = Callable[[str], Awaitable[Answer]]


@dataclass
class Special:
    """A request that is no plain completion, and what it got before anything was hurt."""

    name: str
    answer: Answer
    expected: dict[str, Any]


@dataclass
class Load:
    """Clients that ask until they are told to stop, and all that they got."""

    urls: list[str]
    seed: int
    history: History = field(default_factory=History)
    specials: list[Special] = field(default_factory=list)
    moved: int = 0  # requests that went on at another gateway
    _known: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    async def learn(self) -> None:
        """Ask for everything once while all is well."""
        for length in LENGTHS:
            asked = [(name, length) for name in FEATURES]
            answers = await asyncio.gather(*(self._special(self.urls[0], *one, Answer()) for one in asked))
            for one, answer in zip(asked, answers, strict=True):
                assert answer.whole, f"{one}: {answer.errors}"
                self._known[one] = told(answer)

    async def run(self, until: asyncio.Event) -> None:
        """Ask, with pauses, until told to stop and all have been answered."""
        await asyncio.gather(*(self._user(n, Random(self.seed * 1000 + n), until) for n in range(USERS)))  # noqa: S311

    async def _user(self, n: int, random: Random, until: asyncio.Event) -> None:
        count = 0
        while not until.is_set():
            count += 1
            first = random.randrange(len(self.urls))
            if random.random() < 0.6:
                prompt = f"{self.seed} {n} {count} " + "x" * random.choice((0, 10, 100, 600))
                await self._plain(prompt, random.randrange(3, 400), random.randrange(1000), first)
            else:
                name, length = random.choice(list(FEATURES)), random.choice(LENGTHS)
                special = Special(f"{name} of {length} tokens", Answer(), self._known[name, length])
                self.specials.append(special)
                answer = special.answer
                await self._through(first, answer, lambda url, at=(name, length, answer): self._special(url, *at))  # type: ignore[misc]
            await asyncio.sleep(random.expovariate(4))

    async def _plain(self, prompt: str, tokens: int, seed: int, first: int) -> None:
        expected = reference(prompt, tokens, seed=seed)
        entry = Entry(f"{prompt[:20]!r} seed {seed}", expected, len(prompt_tokens(prompt)))
        self.history.entries.append(entry)
        answer = entry.begun
        await self._through(
            first, answer, lambda url: ask(url, prompt, tokens, seed=seed, timeout_s=PATIENCE_S, into=answer)
        )
        entry.answer = answer

    async def _special(self, url: str, name: str, length: int, answer: Answer) -> Answer:
        return await ask(url, name, length, seed=11, timeout_s=PATIENCE_S, into=answer, **FEATURES[name])

    async def _through(self, first: int, answer: Answer, post: Asking) -> None:
        """Ask one gateway; where it leaves, go on at the other one, and so on."""
        give_up, at = time.monotonic() + PATIENCE_S, first
        await post(self.urls[at])
        while left_alone(answer) and time.monotonic() < give_up:
            self.moved += 1
            at = (at + 1) % len(self.urls)
            await asyncio.sleep(AGAIN_S)
            answer.dones = 0  # an error's own
            if answer.last_event_id:
                await resume(self.urls[at], answer, timeout_s=PATIENCE_S)
            else:
                answer.errors.clear()
                answer.status = 0
                await post(self.urls[at])

    def wrong(self) -> list[str]:
        """Everything that is not as promised: wrong, lost, repeated, failed."""
        wrong = check(self.history) + [f"failed: {one}" for one in self.history.failed]
        for special in self.specials:
            got = told(special.answer)
            if not special.answer.whole:
                wrong.append(f"failed: {special.name} ({special.answer.request_id}): {special.answer.errors}")
                continue
            wrong += [
                f"{special.name} ({special.answer.request_id}): {key} is {got[key]!r}, not {wanted!r}"[:600]
                for key, wanted in special.expected.items()
                if got[key] != wanted
            ]
        return wrong

    @property
    def asked(self) -> int:
        return len(self.history.entries) + len(self.specials)

    def stalls(self) -> str:
        """Say how long streams stood still at most: from a token to the next, or from the question to the first."""
        answers = [entry.begun for entry in self.history.entries] + [special.answer for special in self.specials]
        waits = sorted(max(one.first_s, one.longest_gap_s) for one in answers if one.events)
        if not waits:
            return "no stream"
        p50, p99 = (waits[min(len(waits) - 1, int(len(waits) * part))] for part in (0.5, 0.99))
        return f"longest wait of a stream: p50 {p50:.2f} s, p99 {p99:.2f} s, most {waits[-1]:.2f} s"


def left_alone(answer: Answer) -> bool:
    """Whether its gateway went away, or said that it does: nothing has been decided of the request."""
    if answer.whole:
        return False
    if answer.errors and isinstance(answer.errors[0], str):
        return answer.errors[0] != "timeout"
    return answer.code == "draining" or (answer.broken and not answer.errors)


def told(answer: Answer) -> dict[str, Any]:
    """What a client has of an answer, but for its name, its times and how it was cut into events."""
    choices = sorted({choice for choice, _ in answer.finishes})
    return {
        "text": {choice: answer.text_of(choice) for choice in choices},
        "finishes": sorted(answer.finishes),
        "usage": answer.usage,
        "logprobs": sorted(map(repr, answer.logprobs)),
        "errors": answer.errors,
        "dones": answer.dones,
    }
