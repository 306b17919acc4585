"""What the relay does when a call ends while one of its own events is being written."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.trace import INVALID_SPAN
from prometheus_client import CollectorRegistry

from services.gateway.metrics import Metrics
from services.gateway.prompts.plans import Plan
from services.gateway.relay.calls import Call, open_call
from services.gateway.relay.relay import Relay
from services.gateway.traffic import TrafficBook
from shared.errors import Cancelled
from shared.messages import Failed, Finish, Finished, Frame, Request, Sampling, Stopping, pack_tokens
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import OfferAccepted
from shared.policy.placement import FleetView

SCENARIO = SimpleNamespace(
    name="chat", queue_s=9.0, first_token_s=9.0, timeout_s=9.0, ttft_s=1.0, tpot_s=0.1, affinity=True
)
GRANT = SimpleNamespace(caller=SimpleNamespace(tenant="t", weight=1.0))
PLAN = Plan(pack_tokens([1, 2]), Sampling(), Stopping(max_tokens=9), first_of_prompt=True)


class Choice:
    """A sink and its answer; the end of what it shows cuts its client off."""

    def __init__(self, relay: Relay, *, slow: bool) -> None:
        self.relay, self.slow = relay, slow
        self.call: Call | None = None

    def sink(self, choice: int, request_id: str) -> "Choice":
        return self

    def text(self, index: int, text: str) -> None: ...

    def token(self, index: int, text: str, logprobs: object) -> None: ...

    def finish(self, reason: Finish) -> None:
        if self.slow and self.call is not None:
            self.relay.close(self.call, Cancelled("does not read"))


def opened(relay: Relay, name: str, *, slow: bool) -> Call:
    choice = Choice(relay, slow=slow)
    journal = SimpleNamespace(
        answered=lambda: None, first_token=lambda: None, accepted=lambda *_: None, span=INVALID_SPAN, arrived=0.0
    )
    scenario, grant = cast(Any, SCENARIO), cast(Any, GRANT)
    call = open_call(name, scenario, grant, plans=[PLAN], answer=choice, journal=cast(Any, journal))
    choice.call = call
    relay.start(call)
    call.records[0].begin(0, "g")
    return call


def relay_with(view: FleetView, offers: object = None) -> Relay:
    return Relay(
        "g",
        view=view,
        dispatcher=Dispatcher(view),
        offers=cast(Any, offers),  # None: nobody is there to be asked
        tasks=cast(Any, None),
        metrics=Metrics(CollectorRegistry()),
        traffic=TrafficBook([cast(Any, SCENARIO)]),
        max_streams=9,
    )


async def test_a_client_that_is_cut_off_by_its_last_event_takes_no_other_stream_of_the_frame_along() -> None:
    relay = relay_with(FleetView())
    slow, other = opened(relay, "slow", slow=True), opened(relay, "other", slow=False)
    ended: list[Finished | Failed] = [
        Finished(call.records[0].stream, 0, Finish.STOP, 0, 2, 0) for call in (slow, other)
    ]
    relay.records.take(Frame("d1", (1, 1), [], [], [], [], [], ended=ended))
    assert isinstance(slow.failure, Cancelled)
    assert other.ended.done()
    assert other.failure is None
    assert not len(relay)
    relay.stop()


class Answers:
    """Offers that are accepted when the test says so."""

    def __init__(self) -> None:
        self.accept = asyncio.Event()

    async def ask(self, scenario: str, request: Request, instance: str, span: object) -> OfferAccepted:
        await self.accept.wait()
        return OfferAccepted(request.request_id, request.attempt, instance)

    async def withdraw(self, *_: object) -> None: ...


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_an_acceptance_admits_a_call_unless_it_is_of_an_attempt_that_is_over(*, withdrawn: bool) -> None:
    answers = Answers()
    relay = relay_with(FleetView(), answers)
    call = opened(relay, "one", slow=False)
    asking = asyncio.ensure_future(relay._ask(call, call.records[0].begin(1, "g"), "p1"))
    await asyncio.sleep(0)
    if withdrawn:
        call.records[0].close()
    answers.accept.set()
    await asking
    assert call.admitted.done() is not withdrawn
    relay.close(call)
    relay.stop()
