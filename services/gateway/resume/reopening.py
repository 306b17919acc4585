"""A stream that was claimed becomes a call of this gateway: its text is made again, and goes on from there.

Owns the way back from what workers told to records and their sinks. The desk holds the call, the relay its choices.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from services.gateway.access.caller import Caller
from services.gateway.answers.forms import Asked
from services.gateway.answers.positions import Position
from services.gateway.api.parameters import MAX_CHOICES
from services.gateway.api.responses import ResponsesRequest
from services.gateway.prompts.plans import Plan
from services.gateway.prompts.scenarios import Scenario, Scenarios
from services.gateway.relay.calls import Call
from services.gateway.relay.record import Record
from services.gateway.relay.relay import Relay
from services.gateway.resume.claims import Claimant
from services.gateway.resume.memo import Memo, read_memo
from shared.errors import DeadlineExceeded, UnknownStream
from shared.messages import Claimed, Logprobs, TokenLogprob, unpack_tokens
from shared.text import open_text

GENERATION: Final = 1000
"""Attempts of one gateway at one stream: the next gateway counts from the next thousand on, so that whatever the former
one may still begin is older than all of ours."""
AT_ONCE: Final = 64
"""Tokens shown again before others have their turn."""
LOOK_S: Final = 0.01
"""Between looks at a client that has not taken what it was sent."""

TO_SEND_S: Final = 600.0

_NOWHERE: Final = "no stream of this id can be resumed: it never was, is over for too long, or is not yours"


@dataclass(frozen=True, slots=True)
class Found:
    """A stream as the workers told it."""

    call_id: str
    scenario: Scenario
    memo: Memo
    asked: Asked
    streams: list[Claimed]  # by choice
    choices: int  # of each prompt

    @property
    def plans(self) -> list[Plan]:
        """Its choices, as they were planned."""
        plans = []
        for choice, claimed in enumerate(self.streams):
            request = claimed.request
            prompt = request.tokens[: request.prompt_tokens * 4]
            plans.append(Plan(prompt, request.sampling, request.stopping, choice % self.choices == 0))
        return plans

    @property
    def left_s(self) -> float:
        """Seconds that it has left; to be sent, where it is complete."""
        ends = [one.request.expires_ms / 1000 - time.time() for one in self.streams if one.ended is None]
        return min(ends, default=TO_SEND_S)

    @property
    def packed(self) -> bytes:
        """Its memo as it travels."""
        return self.streams[0].request.memo


async def find(caller: Caller, call_id: str, scenarios: Scenarios, claimant: Claimant) -> Found:
    """Take a stream over from whoever has it. Raises UnknownStream, DeadlineExceeded, LinkLost, Overloaded."""
    mine = [scenario for scenario in scenarios if caller.may_use(scenario.name)]
    names = [call_id, *(f"{call_id}-{choice}" for choice in range(MAX_CHOICES))]
    claims = (claimant.claim(scenario.name, caller.tenant, names) for scenario in mine)
    for scenario, told in zip(mine, await asyncio.gather(*claims), strict=True):
        if told:
            found = _found(call_id, scenario, told)
            if found.left_s <= 0:
                raise DeadlineExceeded("the time of this stream is up")
            return found
    raise UnknownStream(_NOWHERE)


def _found(call_id: str, scenario: Scenario, told: dict[str, Claimed]) -> Found:
    memo = read_memo(next(iter(told.values())).request.memo)
    asked = memo.read()
    choices = 1 if isinstance(asked, ResponsesRequest) else asked.choices
    names = [call_id] if memo.choices == 1 else [f"{call_id}-{choice}" for choice in range(memo.choices)]
    streams = [told.get(name) or _never_placed(name, k, choices, names, told) for k, name in enumerate(names)]
    return Found(call_id, scenario, memo, asked, streams, choices)


def _never_placed(name: str, choice: int, choices: int, names: list[str], told: dict[str, Claimed]) -> Claimed:
    """Make a choice that no worker had yet from another one of the same prompt. Raises UnknownStream."""
    first = choice - choice % choices
    for other in names[first : first + choices]:
        if other in told:
            request = told[other].request
            prompt = request.tokens[: request.prompt_tokens * 4]
            sampling = structs.replace(request.sampling, choice=choice % choices)
            return Claimed("", structs.replace(request, request_id=name, tokens=prompt, sampling=sampling, attempt=0))
    raise UnknownStream(_NOWHERE)


def prepare(record: Record, claimed: Claimed) -> None:
    """Let a record's attempts be newer than any before."""
    record.before = (claimed.request.attempt // GENERATION + 1) * GENERATION - 1


async def show_again(
    call: Call, found: Found, seen: list[Position], relay: Relay, has_room: Callable[[], bool]
) -> None:
    """Bring every choice to where it stands, no faster than the client takes it; end those that are complete.

    The relay must know the call. Its sinks show nothing that the client has seen.
    """
    for choice, (record, claimed) in enumerate(zip(call.records, found.streams, strict=True)):
        position = seen[choice] if choice < len(seen) else Position()
        await _show_one(_Again(record, claimed, position, found.scenario), call, relay, has_room)


class _Again:
    """One choice whose text is made again."""

    def __init__(self, record: Record, claimed: Claimed, seen: Position, scenario: Scenario) -> None:
        self.record = record
        self.ended = claimed.ended
        request = claimed.request
        ids = unpack_tokens(request.tokens)[request.prompt_tokens :]
        self._known = len(ids) - len(claimed.texts)  # of earlier attempts: their texts follow from the tokens
        self._texts = claimed.texts
        self._logprobs = {self._known + one.entry: structs.replace(one, entry=0) for one in claimed.logprobs}
        self._rich = request.sampling.logprobs is not None
        if self._rich and (lost := self._lost_logprobs(seen, len(ids))) < len(ids):
            ids, self.ended = ids[:lost], None  # the rest is computed again, logprobs and all
        self.ids = ids
        prompter = scenario.prompter
        self._tokenizer = prompter.tokenizer
        self._text = open_text(prompter.spec, prompter.tokenizer, request.stopping, [])

    def _lost_logprobs(self, seen: Position, tokens: int) -> int:
        """Say from which token on logprobs are neither here nor with the client."""
        has = seen.entries if seen.units is not None else seen.index + 1
        return next((index for index in range(has, tokens) if index not in self._logprobs), tokens)

    def show(self, index: int) -> None:
        """Show a token as it was shown when it came."""
        record, token = self.record, self.ids[index]
        shown = self._text.push(token) if index < self._known else self._texts[index - self._known]
        record.ids.append(token)
        record.expected = record.resumed = index + 1
        if self._rich:
            # where they are lost the client has them: there they only count
            counted = Logprobs(0, TokenLogprob(token, 0.0, *self._tokenizer.piece(token)), [])
            record.sink.token(index, shown, self._logprobs.get(index, counted))
        elif shown:
            record.text(index, shown)


async def _show_one(again: _Again, call: Call, relay: Relay, has_room: Callable[[], bool]) -> None:
    record = again.record
    for index in range(len(again.ids)):
        if not relay.records.holds(record):  # moderation ended it, or the client is gone
            return
        again.show(index)
        if index % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
            while not has_room() and not call.ended.done():
                if time.monotonic() > call.expires:
                    raise DeadlineExceeded("the client did not take its stream before the time of it was up")
                await asyncio.sleep(LOOK_S)  # transports have no event for it
    if again.ended is not None and relay.records.holds(record):
        relay.complete(call, record, again.ended)
