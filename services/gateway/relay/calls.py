"""One client request while it is being answered: its choices and the two moments that its owner waits for.

Owns the futures `admitted` and `ended`, the usage and the journal. Decides nothing and sends nothing.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from services.gateway.access.caller import Grant
from services.gateway.answers.shapes import Usage
from services.gateway.journal import Journal
from services.gateway.prompts.plans import Plan
from services.gateway.prompts.prefixes import prefix_of
from services.gateway.prompts.scenarios import Scenario
from services.gateway.relay.record import Record, Sink
from shared.errors import BatonError, Cancelled
from shared.messages import Finish, Finished


class Answer(Protocol):
    """Makes the sinks of an answer, whatever its form."""

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        ...


@dataclass(eq=False, slots=True)
class Call:
    """From its arrival to its one ending."""

    id: str
    scenario: Scenario
    grant: Grant
    journal: Journal
    priority: int
    arrived: float  # monotonic
    wait_by: float  # a worker must have it
    deadline: float  # the first token is due
    expires: float
    admitted: "asyncio.Future[None]"
    ended: "asyncio.Future[None]"
    usage: Usage = field(default_factory=Usage)
    records: list[Record] = field(default_factory=list)  # by choice
    open: dict[str, Record] = field(default_factory=dict)  # by request id: choices not ended yet
    counted: set[str] = field(default_factory=set)  # request ids whose prompt counts
    reasons: list[Finish] = field(default_factory=list)

    def admit(self) -> None:
        """Note that a worker holds a choice: from here on the answer may begin."""
        if not self.admitted.done():
            self.admitted.set_result(None)

    @property
    def failure(self) -> BatonError | None:
        """Why it ended badly; None where it ended well. It has ended."""
        if self.ended.cancelled():  # with its handler, whose client has left
            return Cancelled("the client has left")
        error = self.ended.exception()
        return error if isinstance(error, BatonError) else None

    def spent(self) -> tuple[int, int]:
        """Count the tokens that were worked on for this gateway, of prompts and of answers, in whatever state it is."""
        admitted = self.admitted
        if not admitted.done() or admitted.cancelled() or admitted.exception() is not None:
            return 0, 0  # no worker ever held it
        counted = (one for one in self.records if one.request_id in self.counted and one.before < 0)
        prompts = sum(record.prompt_tokens for record in counted)
        return prompts, sum(record.expected - record.resumed for record in self.records)

    def finish(self, record: Record, finished: Finished) -> None:
        """Note a choice's good ending; the last one ends the call."""
        self.open.pop(record.request_id, None)
        self.usage.completion_tokens += finished.completion_tokens
        self.reasons.append(finished.reason)
        if record.request_id in self.counted:
            self.usage.prompt_tokens += finished.prompt_tokens
            self.usage.cached_tokens += finished.cached_tokens
        self.admit()
        if not self.open and not self.ended.done():
            self.journal.answered()
            self.ended.set_result(None)

    def fail(self, error: BatonError) -> None:
        """Note the call's bad ending, once."""
        for future in (self.admitted, self.ended):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits raises it; the loop need not report it where nobody waits any more


def open_call(
    call_id: str,
    scenario: Scenario,
    grant: Grant,
    *,
    plans: list[Plan],
    answer: Answer,
    journal: Journal,
    priority: int = 0,
    timeout_s: float | None = None,
    memo: bytes = b"",
) -> Call:
    """Make a call with a record for each plan. The client's own time counts where it is less than the scenario's."""
    now, unix_ms = time.monotonic(), int(time.time() * 1000)
    total_s = scenario.timeout_s if timeout_s is None else min(timeout_s, scenario.timeout_s)
    first_s = min(scenario.first_token_s, total_s)
    loop = asyncio.get_running_loop()
    call = Call(
        call_id,
        scenario,
        grant,
        journal,
        priority,
        now,
        now + min(scenario.queue_s, first_s),
        now + first_s,
        now + total_s,
        loop.create_future(),
        loop.create_future(),
    )
    prompts = {plan.prompt for plan in plans}
    prefixes = {prompt: prefix_of(prompt) if scenario.affinity else () for prompt in prompts}
    for choice, plan in enumerate(plans):
        request_id = call_id if len(plans) == 1 else f"{call_id}-{choice}"
        sink = answer.sink(choice, request_id)
        record = Record(
            request_id=request_id,
            prompt=plan.prompt,
            sampling=plan.sampling,
            stopping=plan.stopping,
            deadline_ms=unix_ms + int(first_s * 1000),
            expires_ms=unix_ms + int(total_s * 1000),
            sink=sink,
            text=sink.text,
            memo=memo,
            tenant=grant.caller.tenant,
            prefix=prefixes[plan.prompt],
        )
        call.records.append(record)
        call.open[request_id] = record
        if plan.first_of_prompt:
            call.counted.add(request_id)
    return call
