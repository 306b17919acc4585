"""One request's way over a prefill and a decode worker, and every way it can end."""

import time

import pytest

from shared.errors import Code
from shared.messages import (
    Accepted,
    Failed,
    Finish,
    Finished,
    KvReadyEvent,
    Rejected,
    Role,
    Sampling,
    State,
    Stopping,
    decode,
    encode,
)
from tests.fakes import a_request
from tests.unit.worker.relay import SUBJECTS, relay, status_of, until
from tests.unit.worker.scripted import expected_text


async def test_a_request_runs_from_offer_to_finish_and_leaves_nothing_behind() -> None:
    async with relay() as r:
        answer = await r.gateway.offer(a_request(stopping=Stopping(max_tokens=4)))
        assert isinstance(answer, Accepted)
        await r.steps("d1", 3)
        await until(r.gateway.endings)
        assert r.gateway.tokens() == list(enumerate(expected_text([1, 2, 3], 4)))
        assert r.gateway.endings() == [
            Finished(1, 0, Finish.LENGTH, completion_tokens=4, prompt_tokens=3, cached_tokens=1)
        ]
        assert [(h.decode, h.attempt) for h in r.gateway.handed_off] == [("d1", 0)]
        await r.quiet()
        assert r.metric("d1", "baton_worker_attempt_endings_total", outcome="length") == 1
        assert r.metric("p1", "baton_worker_attempt_endings_total", outcome="handed_off") == 1


async def test_the_first_token_is_sent_before_the_kv_has_left() -> None:
    async with relay() as r:
        r.engine("p1").may_export.clear()
        await r.gateway.offer(a_request())
        await until(r.gateway.tokens)
        assert not r.gateway.handed_off
        r.engine("p1").may_export.set()
        await until(lambda: r.gateway.handed_off)


async def test_a_request_that_ends_with_its_first_token_never_meets_a_decode() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=1)))
        await until(r.gateway.endings)
        assert [type(e) for e in r.gateway.endings()] == [Finished]
        assert r.way.pushes == 0
        await r.quiet()


async def test_a_stop_string_over_the_hand_off_is_found_and_not_shown() -> None:
    whole = expected_text([1, 2, 3], 6)
    async with relay() as r:
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=16, stop=[whole[0:3]])))
        await r.steps("d1", 2)
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Finished)
        assert (r.gateway.text(), ending.reason, ending.stop_match) == ("", Finish.STOP, whole[0:3])
        await r.quiet()
        assert "r1#0" in r.engine("d1").released


async def test_an_end_of_sequence_token_is_counted_and_its_text_is_not_shown() -> None:
    async with relay() as r:
        r.engine("d1").eos_at = 2
        await r.gateway.offer(a_request())
        await r.steps("d1", 2)
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Finished)
        assert (ending.reason, ending.completion_tokens, ending.stop_match) == (Finish.STOP, 3, None)
        assert r.gateway.text() == expected_text([1, 2, 3], 2)


async def test_a_replayed_attempt_goes_on_at_its_index() -> None:
    prompt = [1, 2, 3]
    first = [ord(c) for c in expected_text(prompt, 2)]
    async with relay() as r:
        request = a_request(tokens=(*prompt, *first), prompt_tokens=3, attempt=5, stopping=Stopping(max_tokens=4))
        await r.gateway.offer(request)
        await r.steps("d1", 1)
        await until(r.gateway.endings)
        assert r.gateway.tokens(attempt=5) == list(enumerate(expected_text(prompt, 4)))[2:]


async def test_each_step_is_one_frame_for_all_streams_of_a_gateway() -> None:
    async with relay() as r:
        for number in (1, 2):
            await r.gateway.offer(a_request(f"r{number}", stream=number))
        await until(lambda: len(r.engine("d1").held) == 2)
        before = len(r.gateway.frames)
        r.engine("d1").step()
        await until(lambda: len(r.gateway.frames) > before)
        assert [sorted(frame.streams) for frame in r.gateway.frames[before:]] == [[1, 2]]


async def test_a_kv_ready_event_is_mirrored_without_tokens() -> None:
    async with relay() as r:
        events: list[KvReadyEvent] = []
        await r.gateway.bus.subscribe(SUBJECTS.kv_ready("chat"), lambda d: events.append(decode(d.data, KvReadyEvent)))
        await r.gateway.offer(a_request())
        await until(lambda: r.gateway.handed_off)
        assert [(e.request_id, e.kv_tokens, e.kv_bytes) for e in events] == [("r1", 3, 256)]


async def test_one_trace_spans_prefill_push_and_decode() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=2)))
        await r.steps("d1", 1)
        await r.quiet()
        await until(lambda: len(r.spans.get_finished_spans()) == 3)
        spans = {span.name: span for span in r.spans.get_finished_spans()}
        assert set(spans) == {"prefill", "kv push", "decode"}
        assert len({span.context.trace_id for span in spans.values() if span.context}) == 1


# ---- admission -------------------------------------------------------------------------------------------------------


async def test_a_slot_is_held_until_the_kv_has_left_and_its_freedom_is_told_at_once() -> None:
    async with relay() as r:
        r.way.may_push.clear()
        for number in (1, 2):
            assert isinstance(await r.gateway.offer(a_request(f"r{number}", stream=number)), Accepted)
        third = await r.gateway.offer(a_request("r3", stream=3))
        assert isinstance(third, Rejected)
        assert (third.code, third.retryable) == (Code.OVERLOADED, True)
        assert (r.prefill.load().free, r.freed) == (0, [])
        r.way.may_push.set()
        await until(lambda: len(r.gateway.handed_off) == 2)
        assert r.freed == ["p1", "p1"]
        assert isinstance(await r.gateway.offer(a_request("r3", attempt=1, stream=3)), Accepted)


async def test_a_repeated_offer_is_answered_the_same_and_computed_once() -> None:
    async with relay() as r:
        r.engine("p1").may_prefill.clear()
        first = await r.gateway.offer(a_request())
        assert await r.gateway.offer(a_request()) == first
        r.engine("p1").may_prefill.set()
        await until(lambda: r.gateway.handed_off)
        assert r.engine("p1").prefilled == 1


async def test_an_older_attempt_is_refused_and_a_newer_one_takes_the_place_of_it() -> None:
    async with relay() as r:
        r.engine("p1").may_prefill.clear()
        await r.gateway.offer(a_request(attempt=1))
        stale = await r.gateway.offer(a_request(attempt=0))
        assert isinstance(stale, Rejected)
        assert stale.code is Code.STALE
        assert isinstance(await r.gateway.offer(a_request(attempt=2)), Accepted)
        r.engine("p1").may_prefill.set()
        await until(lambda: r.gateway.handed_off)
        assert [h.attempt for h in r.gateway.handed_off] == [2]
        assert [(e.attempt, e.code) for e in r.gateway.endings() if isinstance(e, Failed)] == [(1, Code.STALE)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tokens": tuple(range(1, 65))}, Code.CONTEXT_TOO_LONG),
        ({"deadline_ms": 1}, Code.DEADLINE),
        ({"expires_ms": 1}, Code.DEADLINE),
        ({"prompt_tokens": 9}, Code.MALFORMED),
        ({"tokens": (1, 2, 3, 4), "prompt_tokens": 3, "stopping": Stopping(max_tokens=1)}, Code.BAD_REQUEST),
    ],
)
async def test_what_no_worker_would_take_is_refused_for_good(changes: dict[str, object], code: Code) -> None:
    async with relay() as r:
        answer = await r.gateway.offer(a_request(**changes))  # type: ignore[arg-type]
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (code, False)
        assert r.metric("p1", "baton_worker_rejections_total", code=code.value) == 1
        assert r.prefill.load().free == 2


@pytest.mark.parametrize("worker", ["p1", "d1"])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02", encode(status_of("x", Role.DECODE))])
async def test_bytes_that_are_no_offer_get_an_answer_and_hurt_nobody(worker: str, data: bytes) -> None:
    async with relay() as r:
        subject = SUBJECTS.prefill("chat", "p1") if worker == "p1" else SUBJECTS.decode("chat", "d1")
        answer: Rejected = await r.gateway.bus.request(subject, data, Rejected, timeout_s=5.0)
        assert (answer.code, answer.retryable) == (Code.MALFORMED, False)
        assert r.metric(worker, "baton_worker_malformed_messages_total") == 1
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=2)))
        await r.steps("d1", 1)
        await until(r.gateway.endings)


async def test_a_worker_that_is_not_ready_refuses() -> None:
    async with relay() as r:
        r.states["p1"] = State.STARTING
        answer = await r.gateway.offer(a_request())
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.DRAINING, True)


# ---- deadlines -------------------------------------------------------------------------------------------------------


async def test_a_prompt_that_was_computed_too_late_ends_with_deadline_and_sends_no_token() -> None:
    async with relay() as r:
        r.engine("p1").may_prefill.clear()
        await r.gateway.offer(a_request(deadline_ms=int((time.time() + 0.15) * 1000)))
        overdue = time.monotonic() + 0.2
        await until(lambda: r.engine("p1").held and time.monotonic() > overdue)
        r.engine("p1").may_prefill.set()
        await until(r.gateway.endings)
        assert r.gateway.tokens() == []
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.DEADLINE, False)
        await r.quiet()


async def test_a_request_that_expires_while_it_decodes_is_ended_and_freed() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(expires_ms=int((time.time() + 0.3) * 1000)))
        await r.steps("d1", 1)
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.DEADLINE, False)
        await r.quiet()


async def test_logprobs_are_sent_where_they_were_asked_for_and_nowhere_else() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request("r1", sampling=Sampling(logprobs=2), stopping=Stopping(max_tokens=2)))
        await r.gateway.offer(a_request("r2", stream=2, stopping=Stopping(max_tokens=2)))
        await r.run("d1", lambda: bool(r.gateway.endings(1) and r.gateway.endings(2)))
        said = [(frame.streams[one.entry], len(one.top)) for frame in r.gateway.frames for one in frame.logprobs]
        assert said == [(1, 2), (1, 2)]
