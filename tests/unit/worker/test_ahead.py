"""Long prompts whose KV leaves while they are computed: the same text, and nothing lost wherever it breaks."""

from dataclasses import replace

import pytest

from services.decode.intake import MOST_GROWING
from shared.errors import Code, DeadlineExceeded, EngineFailed, KvRefused, WorkerLost
from shared.messages import (
    Accepted,
    Claim,
    Claimed,
    Failed,
    Finished,
    KvGrant,
    KvReady,
    Rejected,
    Request,
    Sampling,
    Stopping,
    decode,
)
from tests.fakes import a_request
from tests.unit.worker.relay import EPOCH, SUBJECTS, Relay, relay, until
from tests.unit.worker.scripted import INFO, expected_text

PROMPT = tuple(range(1, 13))
"""Three blocks."""
LONG = {"overlap_from": len(PROMPT)}
WIDE = replace(INFO, max_sequences=2 * MOST_GROWING)


def long(request_id: str = "r1", **changes: object) -> Request:
    return a_request(request_id, **{"tokens": PROMPT, "stopping": Stopping(max_tokens=4), **changes})


async def begun(r: Relay, request: Request) -> str:
    """Offer it, and wait until its push has begun while it is computed; the decode that makes room."""
    r.engine("p1").may_prefill.clear()
    assert isinstance(await r.gateway.offer(request), Accepted)
    await until(lambda: r.way.growing and r.engine("p1").growths)
    return holder(r)


def holder(r: Relay) -> str:
    (name,) = (name for name, worker in r.decodes.items() if len(worker.roster))
    return name


async def whole(r: Relay, at: str) -> None:
    """The stream's end, and that it is what one without mishaps says."""
    await r.run(at, lambda: bool(r.gateway.endings()))
    assert r.gateway.tokens() == list(enumerate(expected_text(list(PROMPT), 4)))
    assert [type(ending) for ending in r.gateway.endings()] == [Finished]
    await r.quiet()


async def test_blocks_leave_while_others_are_computed_and_the_first_token_follows_them() -> None:
    async with relay(**LONG) as r:
        await begun(r, long())
        for tokens in (4, 8):
            r.engine("p1").grow("r1#0", tokens)
            await until(lambda tokens=tokens: r.way.moved == INFO.kv_bytes(tokens))  # type: ignore[misc]
        assert (r.gateway.tokens(), r.engine("d1").held) == ([], {})
        r.engine("p1").may_prefill.set()
        await whole(r, "d1")
        assert r.way.pushes == 0
        assert [(h.decode, h.attempt) for h in r.gateway.handed_off] == [("d1", 0)]
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Finished)
        assert (ending.prompt_tokens, ending.cached_tokens, ending.completion_tokens) == (len(PROMPT), 1, 4)
        assert r.metric("p1", "baton_worker_kv_bytes_total", transport="memory") == INFO.kv_bytes(len(PROMPT))


async def test_logprobs_stop_strings_and_replays_are_as_ever() -> None:
    whole_text = expected_text(list(PROMPT), 6)
    grown = (*PROMPT, ord(whole_text[0]))
    async with relay(**LONG) as r:
        for number, changes in enumerate(
            [
                {"sampling": Sampling(logprobs=1)},
                {"stopping": Stopping(max_tokens=9, stop=[whole_text[1:3]])},
                {"tokens": grown, "prompt_tokens": len(PROMPT), "attempt": 2},
            ]
        ):
            said = []
            for half, overlap in enumerate((True, False)):
                r.way.grows, stream = overlap, 2 * number + half
                await r.gateway.offer(long(f"r{stream}", stream=stream, **changes))
                await r.run("d1", lambda stream=stream: bool(r.gateway.endings(stream)))  # type: ignore[misc]
                attempt = int(str(changes.get("attempt", 0)))
                frames = [frame for frame in r.gateway.frames if stream in frame.streams]
                (ending,) = r.gateway.endings(stream)
                assert isinstance(ending, Finished)
                said.append(
                    (
                        r.gateway.tokens(stream, attempt),
                        [one for frame in frames for one in frame.logprobs],
                        (ending.reason, ending.completion_tokens, ending.stop_match),
                    )
                )
            assert said[0] == said[1]
        assert (len(r.way.growing), r.way.pushes) == (3, 3)


@pytest.mark.parametrize("reason", ["short", "off", "no thread is free"])
async def test_other_prompts_are_handed_over_whole(reason: str) -> None:
    async with relay(overlap_from=0 if reason == "off" else len(PROMPT) + (reason == "short")) as r:
        r.way.grows = reason != "no thread is free"
        await r.gateway.offer(long())
        await whole(r, "d1")
        assert (len(r.way.growing), r.way.pushes) == (0, 1)


async def test_where_no_decode_has_room_ahead_it_is_handed_over_when_one_has() -> None:
    async with relay(**LONG) as r:
        arena = r.standings["d1"].arena
        taken = arena.reserve(arena.size)
        r.engine("p1").may_prefill.clear()
        await r.gateway.offer(long())
        await until(lambda: r.metric("d1", "baton_worker_rejections_total", code=Code.OVERLOADED.value) >= 1)
        taken.release()
        r.engine("p1").may_prefill.set()
        await whole(r, "d1")
        assert (len(r.way.growing), r.way.pushes) == (0, 1)


async def test_a_decode_lets_only_so_many_come_while_they_are_computed() -> None:
    async with relay(**LONG, info=WIDE) as r:
        r.engine("p1").may_prefill.clear()
        for number in range(MOST_GROWING):
            assert isinstance(await r.gateway.offer(long(f"r{number}", stream=number)), Accepted)
        await until(lambda: len(r.way.growing) == MOST_GROWING)
        offer = KvReady(long("more"), "p1", EPOCH, INFO.fingerprint, 12, INFO.kv_bytes(12), growing=True)
        subject = SUBJECTS.decode("chat", "d1")
        answer: KvGrant | Rejected = await r.gateway.bus.request(subject, offer, KvGrant | Rejected, timeout_s=5.0)
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.OVERLOADED, True)
        r.engine("p1").may_prefill.set()
        await r.run("d1", lambda: all(r.gateway.endings(number) for number in range(MOST_GROWING)))


# ---- where it breaks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KvRefused("checksum", "torn"), WorkerLost("gone"), DeadlineExceeded("late")])
async def test_a_push_that_breaks_midway_leaves_no_trace_and_another_decode_gets_the_whole(error: Exception) -> None:
    async with relay(decodes=("d1", "d2"), **LONG) as r:
        r.way.growth_breaks.append(error)  # type: ignore[arg-type]
        first = None
        r.engine("p1").may_prefill.clear()
        await r.gateway.offer(long())
        await until(lambda: r.way.growing)
        await until(lambda: not any(len(worker.roster) for worker in r.decodes.values()))
        first = next(name for name in r.decodes if "r1#0" in r.engine(name).released)
        r.engine("p1").may_prefill.set()
        await whole(r, "d1" if first == "d2" else "d2")
        assert r.way.pushes == 1


async def test_a_buffer_whose_arrival_nobody_confirmed_is_taken_back_before_another_gets_it() -> None:
    async with relay(decodes=("d1", "d2"), **LONG) as r:
        r.way.growth_breaks.append(WorkerLost("no word"))
        r.way.arrives_anyway = True
        for name in r.decodes:
            r.engine(name).may_insert.clear()
        first = await begun(r, long())
        r.engine("p1").may_prefill.set()
        await until(lambda: r.way.pushes == 1)
        for name in r.decodes:
            r.engine(name).may_insert.set()
        await whole(r, "d1" if first == "d2" else "d2")
        assert [handed.decode for handed in r.gateway.handed_off] == ["d1" if first == "d2" else "d2"]


async def test_the_only_decode_that_lost_it_makes_the_gateway_begin_anew() -> None:
    async with relay(**LONG) as r:
        r.way.growth_breaks.append(WorkerLost("gone"))
        await r.gateway.offer(long())
        await until(r.gateway.endings)
        (ending,) = r.gateway.endings()
        assert isinstance(ending, Failed)
        assert ending.retryable
        await r.quiet()


async def test_a_first_token_that_is_the_last_leaves_no_decode_waiting() -> None:
    async with relay(**LONG) as r:
        await begun(r, long(stopping=Stopping(max_tokens=1)))
        r.engine("p1").may_prefill.set()
        await until(r.gateway.endings)
        await r.quiet()
        assert [type(ending) for ending in r.gateway.endings()] == [Finished]
        assert not r.gateway.handed_off


@pytest.mark.parametrize("phase", ["asked", "growing", "exporting"])
async def test_a_cancel_in_every_phase_frees_both_ends(phase: str) -> None:
    async with relay(**LONG) as r:
        if phase == "asked":
            r.way.may_push.clear()
        if phase == "exporting":
            r.engine("p1").may_export.clear()
        await begun(r, long())
        if phase != "asked":
            r.engine("p1").grow("r1#0", 4)
        if phase == "exporting":
            r.engine("p1").may_prefill.set()
            await until(r.gateway.tokens)
        await r.gateway.cancel("r1", 0)
        r.way.may_push.set()
        await r.quiet()
        assert {ending.code for ending in r.gateway.endings() if isinstance(ending, Failed)} == {Code.CANCELLED}


async def test_a_prompt_that_fails_is_told_once_and_its_decode_frees_its_room() -> None:
    async with relay(**LONG) as r:
        await begun(r, long())
        r.engine("p1").grow("r1#0", 8)
        r.engine("p1").fails = EngineFailed("no")
        r.engine("p1").may_prefill.set()
        await r.quiet()
        assert [ending.code for ending in r.gateway.endings() if isinstance(ending, Failed)] == [Code.ENGINE_FAILED]
        assert r.metric("p1", "baton_worker_kv_push_failures_total", code=Code.WORKER_LOST.value) == 0


async def test_another_gateway_claims_it_while_it_grows_and_after() -> None:
    async with relay(**LONG) as r:
        await begun(r, long(memo=b"memo"))
        assert {claimed.request.n_tokens for claimed in await claims(r)} == {len(PROMPT)}
        r.engine("p1").may_prefill.set()
        await r.quiet()
        await r.gateway.offer(long("r2", memo=b"memo", stream=2))
        await r.steps("d1", 2)
        await until(lambda: len(r.gateway.tokens(2)) == 3)
        (claimed,) = [one for one in await claims(r, "r2") if one.texts and one.instance == "d1"]
        assert claimed.request.n_tokens == len(PROMPT) + 3
        await r.quiet()


async def claims(r: Relay, request_id: str = "r1") -> list[Claimed]:
    """What prefill and decode tell another gateway."""
    answers: list[bytes] = []
    bus = r.gateway.bus
    inbox = bus.inbox()
    await bus.subscribe(inbox, lambda d: answers.append(d.data))
    await bus.publish(SUBJECTS.claim("chat"), Claim([request_id], "gateway-2"), reply=inbox)
    await until(lambda: sum(b"claims" in data for data in answers) == 2)
    return [decode(data, Claimed) for data in answers if b"claimed" in data]
