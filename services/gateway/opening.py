"""A call is put together: its answer's sinks, behind whatever reads along, and a record for each choice.

Owns the order of the readers: what a client has seen is skipped last, calls of functions are found before that, and
moderation comes first.
"""

from dataclasses import dataclass

from services.gateway.access.caller import Grant
from services.gateway.answers.calling import CallingAnswer
from services.gateway.answers.counted import CountedAnswer
from services.gateway.answers.maps import NatsAnswer
from services.gateway.answers.positions import Position
from services.gateway.answers.response_events import ResponseEvents
from services.gateway.answers.skipping import SkippingAnswer
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.content.moderation import Moderation
from services.gateway.content.report import Who
from services.gateway.journal import Journal
from services.gateway.prompts.chats import calling_of
from services.gateway.prompts.plans import Plan, sizes_of
from services.gateway.prompts.scenarios import Scenario
from services.gateway.relay.calls import Answer, Call, open_call
from services.gateway.relay.relay import Relay


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call is made of."""

    asked: ChatRequest | CompletionRequest
    scenario: Scenario
    grant: Grant
    journal: Journal
    who: Who
    plans: list[Plan]
    answer: Answer
    timeout_s: float | None
    memo: bytes
    seen: list[Position] | None = None  # of a stream that is resumed


def make_call(opening: Opening, moderation: Moderation, relay: Relay) -> Call:
    """Put readers before an answer's sinks, and make the call; nothing is asked of any worker yet."""
    asked, who, caller = opening.asked, opening.who, opening.grant.caller
    answer = _reading(opening)
    guarded = moderation.guarded(answer, relay, who)
    call = open_call(
        who.request,
        opening.scenario,
        opening.grant,
        plans=opening.plans,
        answer=guarded or answer,
        journal=opening.journal,
        priority=caller.priority + max(0, asked.priority or 0),  # a client may only let others go first
        timeout_s=opening.timeout_s,
        memo=opening.memo,
    )
    for record in call.records:
        record.joins = not isinstance(opening.answer, ResponseEvents)  # whose events are numbered
    if guarded is not None:
        guarded.watch(call)
    opening.journal.started()
    return call


def _reading(opening: Opening) -> Answer:
    """Tell an answer what it counts from; put before its sinks what skips, and what finds calls of functions."""
    answer, asked = opening.answer, opening.asked
    if isinstance(answer, CountedAnswer | NatsAnswer):
        answer.expect(sizes_of(opening.plans)[0])
    if opening.seen is not None and not isinstance(answer, ResponseEvents):  # which skips by its own numbers
        answer = SkippingAnswer(answer, opening.seen)
    if isinstance(asked, ChatRequest) and (calling := calling_of(asked, opening.scenario.prompter.form)):
        return CallingAnswer(answer, calling, streamed=bool(asked.stream))
    return answer
