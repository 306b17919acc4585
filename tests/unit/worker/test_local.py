"""Whole prompts at a decode: what a client and a gateway see is what a prefill and a decode would have shown."""

import asyncio
from dataclasses import replace

import pytest

from shared.errors import Code, Overloaded
from shared.messages import (
    Accepted,
    Cancel,
    Claim,
    Claimed,
    Done,
    Failed,
    Finish,
    Finished,
    KvReady,
    Rejected,
    Request,
    Sampling,
    State,
    Stopping,
    decode,
)
from shared.policy.admission import LOCAL_ONE_IN
from tests.fakes import a_request
from tests.unit.worker.relay import EPOCH, SUBJECTS, Relay, relay, until
from tests.unit.worker.scripted import INFO, expected_text

WIDE = replace(INFO, max_sequences=2 * LOCAL_ONE_IN)


async def offer(r: Relay, request: Request) -> Accepted | Rejected:
    return await r.gateway.offer(request, "d1")


async def refusal(r: Relay, request: Request) -> tuple[Code, bool]:
    answer = await offer(r, request)
    assert isinstance(answer, Rejected)
    return answer.code, answer.retryable


async def told(r: Relay, request: Request, at: str) -> tuple[list[tuple[int, str]], list[Finished | Failed]]:
    """What the gateway hears of a request of four tokens that was offered there."""
    await r.gateway.offer(request, at)
    await r.run("d1", lambda: bool(r.gateway.endings(request.stream)))
    return r.gateway.tokens(request.stream), r.gateway.endings(request.stream)


# ---- the way it goes well --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling": Sampling(logprobs=2)},
        {"stopping": Stopping(max_tokens=8, stop=[expected_text([1, 2, 3], 6)[2:4]])},
        {"stopping": Stopping(max_tokens=1)},
        {"tokens": (1, 2, 3, 4, 5), "prompt_tokens": 3},
    ],
    ids=["plain", "logprobs", "a stop string", "one token", "a replayed attempt"],
)
async def test_the_gateway_hears_the_same_as_of_two_workers(changes: dict[str, object]) -> None:
    fields = {"stopping": Stopping(max_tokens=4), **changes}
    async with relay(local_below=8) as r:
        by_two = await told(r, a_request("two", stream=1, **fields), "p1")
        pushes = r.way.pushes
        alone = await told(r, a_request("one", stream=2, **fields), "d1")
        assert alone == (by_two[0], [replace_stream(ending, 2) for ending in by_two[1]])
        assert r.way.pushes == pushes
        frames = [frame for frame in r.gateway.frames if 2 in frame.streams]
        assert {frame.instance for frame in frames} == {"d1"}
        logprobs = {n: [[one for f in r.gateway.frames if n in f.streams for one in f.logprobs]] for n in (1, 2)}
        assert logprobs[1] == logprobs[2]
        await r.quiet()


def replace_stream(ending: Finished | Failed, stream: int) -> Finished | Failed:
    fields = {name: getattr(ending, name) for name in ending.__struct_fields__}
    return type(ending)(**{**fields, "stream": stream})


async def test_the_decode_says_itself_that_it_owns_the_attempt_before_its_next_token() -> None:
    async with relay(local_below=8) as r:
        await offer(r, a_request())
        await until(lambda: r.gateway.handed_off)
        assert [(h.decode, h.attempt, h.request_id) for h in r.gateway.handed_off] == [("d1", 0, "r1")]
        assert len(r.gateway.tokens()) == 1


async def test_running_streams_go_on_while_a_prompt_is_computed() -> None:
    async with relay(local_below=8, info=WIDE) as r:
        await r.gateway.offer(a_request("running", stream=1))
        await until(lambda: r.engine("d1").decoding)
        r.engine("d1").may_prefill.clear()
        await offer(r, a_request("new", stream=2))
        await r.steps("d1", 3)
        await until(lambda: len(r.gateway.tokens(1)) == 4)
        assert r.gateway.tokens(2) == []
        load = r.decodes["d1"].load()
        assert (load.free, load.busy) == (WIDE.max_sequences - 2, True)
        r.engine("d1").may_prefill.set()
        await until(lambda: len(r.engine("d1").decoding) == 2)
        await r.steps("d1", 1)
        await until(lambda: len(r.gateway.tokens(2)) == 2)


async def test_one_trace_spans_prompt_and_decode_and_says_that_it_was_local() -> None:
    async with relay(local_below=8) as r:
        await told(r, a_request(stopping=Stopping(max_tokens=2)), "d1")
        await r.quiet()
        await until(lambda: len(r.spans.get_finished_spans()) == 2)
        spans = {span.name: span for span in r.spans.get_finished_spans()}
        assert set(spans) == {"prefill", "decode"}
        assert all(span.attributes and span.attributes["baton.local"] for span in spans.values())
        assert r.metric("d1", "baton_worker_prefill_seconds_count") == 1
        assert r.metric("d1", "baton_worker_attempt_endings_total", outcome="length") == 1


# ---- who may come in -------------------------------------------------------------------------------------------------


async def test_by_default_no_prompt_is_taken() -> None:
    async with relay() as r:
        assert await refusal(r, a_request()) == (Code.NO_CAPACITY, True)
        await r.quiet()


async def test_a_prompt_that_is_not_short_is_refused_unless_its_beginning_is_cached() -> None:
    async with relay(local_below=4) as r:
        long = a_request(tokens=tuple(range(1, 8)))
        assert await refusal(r, long) == (Code.NO_CAPACITY, True)
        r.engine("d1").cached_tokens = 3
        assert await refusal(r, long) == (Code.NO_CAPACITY, True)
        r.engine("d1").cached_tokens = 4
        assert isinstance(await offer(r, long), Accepted)


async def test_a_quarter_of_the_sequences_may_be_prompts() -> None:
    async with relay(local_below=8, info=WIDE) as r:
        r.engine("d1").may_prefill.clear()
        for number in (1, 2):
            assert isinstance(await offer(r, a_request(f"r{number}", stream=number)), Accepted)
        assert await refusal(r, a_request("r3", stream=3)) == (Code.NO_CAPACITY, True)
        assert r.metric("d1", "baton_worker_local_prompts") == 2
        r.engine("d1").may_prefill.set()
        await until(lambda: len(r.engine("d1").decoding) == 2)
        await until(lambda: r.metric("d1", "baton_worker_local_prompts") == 0)
        assert isinstance(await offer(r, a_request("r3", attempt=1, stream=3)), Accepted)


async def test_a_full_batch_takes_no_prompt_and_a_prompt_takes_a_place_from_those_that_come() -> None:
    async with relay(local_below=8) as r:
        await r.gateway.offer(a_request("first", stream=1))
        await until(lambda: r.engine("d1").decoding)
        assert isinstance(await offer(r, a_request("local", stream=2)), Accepted)
        await until(lambda: len(r.engine("d1").decoding) == 2)
        assert await refusal(r, a_request("another", stream=3)) == (Code.NO_CAPACITY, True)
        await r.gateway.offer(a_request("waits", stream=4))
        await until(lambda: len(r.gateway.handed_off) == 3)
        assert len(r.engine("d1").decoding) == 2
        await r.gateway.cancel("first", 0)
        await until(lambda: r.engine("d1").decoding == {"local#0", "waits#0"})


async def test_staging_and_blocks_must_be_there() -> None:
    async with relay(local_below=8) as r:
        arena = r.standings["d1"].arena
        all_of_it = arena.reserve(arena.size)
        assert await refusal(r, a_request()) == (Code.NO_CAPACITY, True)
        all_of_it.release()
        r.engine("d1").held["hog"] = [1] * (INFO.blocks * INFO.block_tokens)
        assert await refusal(r, a_request(attempt=1)) == (Code.NO_CAPACITY, True)
        del r.engine("d1").held["hog"]
        assert isinstance(await offer(r, a_request(attempt=2)), Accepted)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tokens": tuple([1] * INFO.context)}, Code.CONTEXT_TOO_LONG),
        ({"deadline_ms": 1}, Code.DEADLINE),
        ({"prompt_tokens": 1, "stopping": Stopping(max_tokens=2)}, Code.BAD_REQUEST),
        ({"prompt_tokens": 9}, Code.MALFORMED),
    ],
)
async def test_what_nobody_could_compute_is_refused_for_good(changes: dict[str, object], code: Code) -> None:
    async with relay(local_below=8) as r:
        assert await refusal(r, a_request(**changes)) == (code, False)
        await r.quiet()


async def test_bad_bytes_are_answered() -> None:
    async with relay(local_below=8) as r:
        subject = SUBJECTS.prefill("chat", "d1")
        answer: Rejected = await r.gateway.bus.request(subject, b"\xc1 nonsense", Rejected, timeout_s=5.0)
        assert answer.code is Code.MALFORMED


async def test_a_repeated_offer_is_answered_the_same_and_computed_once() -> None:
    async with relay(local_below=8) as r:
        r.engine("d1").may_prefill.clear()
        first = await offer(r, a_request())
        assert await offer(r, a_request()) == first
        r.engine("d1").may_prefill.set()
        await until(lambda: r.engine("d1").decoding)
        assert r.engine("d1").prefilled == 1


async def test_an_attempt_that_is_computed_here_is_not_pushed_here_too() -> None:
    async with relay(local_below=8) as r:
        r.engine("d1").may_prefill.clear()
        await offer(r, a_request())
        pushed = KvReady(a_request(tokens=(1, 2, 3, 4), prompt_tokens=3), "p1", EPOCH, INFO.fingerprint, 3, 256)
        answer: Rejected = await r.gateway.bus.request(SUBJECTS.decode("chat", "d1"), pushed, Rejected, timeout_s=5.0)
        assert answer.code is Code.STALE


# ---- the ways it ends early ------------------------------------------------------------------------------------------


async def at_phase(r: Relay, phase: str, request: Request) -> None:
    """Let an offered attempt come as far as that, and stand."""
    engine = r.engine("d1")
    for name, gate in (
        ("computing", engine.may_prefill),
        ("exporting", engine.may_export),
        ("inserting", engine.may_insert),
    ):
        if name == phase:
            gate.clear()
    assert isinstance(await offer(r, request), Accepted)
    await until(lambda: engine.held)
    if phase == "exporting":
        await until(r.gateway.tokens)
    elif phase in ("inserting", "decoding"):
        await until(lambda: engine.decoding)


def go_on(r: Relay) -> None:
    for gate in (r.engine("d1").may_prefill, r.engine("d1").may_export, r.engine("d1").may_insert):
        gate.set()


PHASES = ["computing", "exporting", "inserting", "decoding"]


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancel_ends_it_in_every_phase_and_frees_everything(phase: str) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, phase, a_request())
        await r.gateway.cancel("r1", 0)
        await until(r.gateway.endings)
        go_on(r)
        await r.quiet()
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert ending.code is Code.CANCELLED
        assert (await refusal(r, a_request()))[0] is Code.STALE


@pytest.mark.parametrize("phase", PHASES)
async def test_a_newer_attempt_takes_its_place_in_every_phase(phase: str) -> None:
    async with relay(local_below=8, info=WIDE) as r:
        await at_phase(r, phase, a_request())
        assert isinstance(await offer(r, a_request(attempt=1, stopping=Stopping(max_tokens=3))), Accepted)
        go_on(r)
        await r.run("d1", lambda: any(isinstance(ending, Finished) for ending in r.gateway.endings()))
        assert r.gateway.tokens(attempt=1) == list(enumerate(expected_text([1, 2, 3], 3)))
        await r.quiet()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_drain_that_takes_too_long_sends_it_elsewhere(phase: str) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, phase, a_request())
        r.states["d1"] = State.DRAINING
        assert await refusal(r, a_request("late")) == (Code.DRAINING, True)
        await r.decodes["d1"].drain(0.01)
        await until(r.gateway.endings)
        go_on(r)
        await r.quiet()
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.DRAINING, True)


async def test_a_drain_waits_for_what_is_computed_here() -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, "computing", a_request(stopping=Stopping(max_tokens=2)))
        draining = asyncio.create_task(r.decodes["d1"].drain(5.0), name="drain")
        await asyncio.sleep(0)
        go_on(r)
        await r.run("d1", lambda: bool(r.gateway.endings()))
        await draining
        assert [type(ending) for ending in r.gateway.endings()] == [Finished]


@pytest.mark.parametrize("phase", PHASES)
async def test_the_engines_death_is_told_in_every_phase(phase: str) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, phase, a_request())
        r.engine("d1").die()
        await until(r.gateway.endings)
        go_on(r)
        await r.quiet()
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert ending.code is Code.ENGINE_FAILED


@pytest.mark.parametrize("phase", ["computing", "inserting"])
async def test_a_want_of_blocks_sends_it_elsewhere(phase: str) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, phase, a_request())
        r.engine("d1").fails = Overloaded("no blocks")
        go_on(r)
        await until(r.gateway.endings)
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.OVERLOADED, True)
        await r.quiet()


async def test_a_prompt_that_expired_while_it_was_computed_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, "computing", a_request())
        monkeypatch.setattr("shared.worker.prompting.left_s", lambda _: -0.1)
        go_on(r)
        await until(r.gateway.endings)
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.DEADLINE, False)
        assert r.gateway.tokens() == []
        await r.quiet()


@pytest.mark.parametrize("phase", ["computing", "exporting", "decoding"])
async def test_another_gateway_claims_it_and_hears_every_token_so_far(phase: str) -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, phase, a_request(memo=b"memo"))
        if phase == "decoding":
            await r.steps("d1", 2)
            await until(lambda: len(r.gateway.tokens()) == 3)
        claimed = await claim(r)
        count = {"computing": 0, "exporting": 1, "decoding": 3}[phase]
        assert "".join(claimed.texts) == expected_text([1, 2, 3], count)
        assert claimed.request.n_tokens == 3 + count
        go_on(r)
        await r.quiet()


async def test_an_ended_stream_is_kept_for_whoever_comes_back() -> None:
    async with relay(local_below=8) as r:
        await told(r, a_request(memo=b"memo", stopping=Stopping(max_tokens=3)), "d1")
        await r.quiet()
        claimed = await claim(r)
        assert "".join(claimed.texts) == expected_text([1, 2, 3], 3)
        assert claimed.ended is not None
        assert claimed.ended.reason is Finish.LENGTH


async def claim(r: Relay) -> Claimed:
    """What d1 tells another gateway of the request."""
    answers: list[Claimed] = []
    bus = r.gateway.bus
    inbox = bus.inbox()
    await bus.subscribe(inbox, lambda d: answers.append(decode(d.data, Claimed)) if b"claimed" in d.data else None)
    await bus.publish(SUBJECTS.claim("chat"), Claim(["r1"], "gateway-2"), reply=inbox)
    await until(lambda: answers)
    return answers[0]


async def test_prefills_word_about_an_older_attempt_ends_that_one_alone() -> None:
    async with relay(local_below=8) as r:
        await at_phase(r, "decoding", a_request(attempt=3))
        await r.gateway.bus.request(SUBJECTS.decode("chat", "d1"), Cancel("r1", 2), Done, timeout_s=5.0)
        assert r.engine("d1").decoding == {"r1#3"}
