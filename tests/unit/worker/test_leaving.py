"""Cancels in every phase, drains, cut-offs, a bus that takes nothing: everything is freed, with one ending each."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.errors import Code, WorkerLost
from shared.messages import Accepted, Failed, Finished, KvGrant, KvReady, Rejected, Stopping, pack_tokens
from shared.worker.frames import Draft
from tests.fakes import a_request
from tests.unit.worker.relay import EPOCH, SUBJECTS, Relay, member_map, relay, until
from tests.unit.worker.scripted import next_token


async def computing(r: Relay) -> None:
    r.engine("p1").may_prefill.clear()
    await r.gateway.offer(a_request())
    await until(lambda: r.engine("p1").held)


async def exporting(r: Relay) -> None:
    r.engine("p1").may_export.clear()
    await r.gateway.offer(a_request())
    await until(r.gateway.tokens)


async def offering(r: Relay) -> None:
    r.hub.loses = lambda subject, _data: ".decode." in subject
    await r.gateway.offer(a_request())
    await until(lambda: any(".decode." in subject for subject, _ in r.hub.passed))


async def pushing(r: Relay) -> None:
    r.way.may_push.clear()
    await r.gateway.offer(a_request())
    await until(lambda: r.way.pushes)


async def inserting(r: Relay) -> None:
    r.engine("d1").may_insert.clear()
    await r.gateway.offer(a_request())
    await until(lambda: r.engine("d1").held)


async def decoding(r: Relay) -> None:
    await r.gateway.offer(a_request())
    await until(lambda: r.engine("d1").held and r.gateway.handed_off)


PHASES = [computing, exporting, offering, pushing, inserting, decoding]
Phase = Callable[[Relay], Awaitable[None]]


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancel_takes_effect_in_every_phase_and_frees_everything(phase: Phase) -> None:
    async with relay() as r:
        await phase(r)
        await r.gateway.cancel("r1", 0)
        await r.gateway.cancel("r1", 0)
        await r.quiet()
        endings = r.gateway.endings()
        assert all(isinstance(e, Failed) and e.code is Code.CANCELLED for e in endings)
        assert len(endings) == 1


@pytest.mark.parametrize("phase", PHASES)
async def test_an_attempt_that_a_drain_does_not_wait_for_fails_retryably_once(phase: Phase) -> None:
    async with relay() as r:
        await phase(r)
        await asyncio.gather(r.prefill.drain(0), r.decodes["d1"].drain(0))
        await r.quiet()
        endings = r.gateway.endings()
        assert all(isinstance(e, Failed) and e.code is Code.DRAINING and e.retryable for e in endings)
        assert len(endings) == 1


@pytest.mark.parametrize("phase", PHASES)
async def test_a_worker_whose_tenure_is_broken_ends_what_it_holds_retryably(phase: Phase) -> None:
    async with relay() as r:
        await phase(r)
        r.prefill.drop(WorkerLost("others have taken over"))
        r.decodes["d1"].drop(WorkerLost("others have taken over"))
        await r.quiet()
        assert [(e.code, e.retryable) for e in r.gateway.endings() if isinstance(e, Failed)] == [
            (Code.WORKER_LOST, True)
        ]
        r.hub.loses = lambda _subject, _data: False
        for may in (r.engine("p1").may_prefill, r.engine("p1").may_export, r.engine("d1").may_insert, r.way.may_push):
            may.set()
        assert isinstance(await r.gateway.offer(a_request(attempt=1)), Accepted), "it is no drain: it goes on"
        await until(lambda: r.gateway.handed_off and r.gateway.handed_off[-1].attempt == 1)


async def test_a_drain_is_over_only_when_the_endings_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay() as r:
        await computing(r)
        sender, sent = r.standings["p1"].sender, []
        end = sender.end

        async def slowly(gateway: str, *ended: Finished | Failed) -> None:
            await asyncio.sleep(0.05)
            await end(gateway, *ended)
            sent.extend(ended)

        monkeypatch.setattr(sender, "end", slowly)
        await r.prefill.drain(0)
        assert [type(e) for e in sent] == [Failed]


async def test_a_drain_lets_what_is_held_finish_and_takes_nothing_new() -> None:
    async with relay() as r:
        await pushing(r)
        draining = asyncio.ensure_future(r.prefill.drain(5.0))
        await asyncio.sleep(0)
        refused = await r.gateway.offer(a_request("r2", stream=2))
        assert isinstance(refused, Rejected)
        assert (refused.code, refused.retryable) == (Code.DRAINING, True)
        assert not draining.done()
        r.way.may_push.set()
        await draining
        assert [h.request_id for h in r.gateway.handed_off] == ["r1"]
        assert r.gateway.endings() == []


async def test_a_cancel_that_overtakes_its_request_is_remembered() -> None:
    async with relay() as r:
        await r.gateway.cancel("r1", 2)
        for attempt, taken in ((1, Rejected), (2, Rejected), (3, Accepted)):
            assert isinstance(await r.gateway.offer(a_request(attempt=attempt)), taken)
        assert r.engine("p1").prefilled <= 1


async def test_a_cancel_of_an_older_attempt_leaves_the_newer_alone() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(attempt=3, stopping=Stopping(max_tokens=2)))
        await r.gateway.cancel("r1", 2)
        await r.steps("d1", 1)
        await until(r.gateway.endings)
        assert [type(e) for e in r.gateway.endings()] == [Finished]


async def test_a_grant_that_is_never_used_lapses_and_the_gateway_hears_nothing() -> None:
    async with relay() as r:
        token = next_token([1, 2, 3])
        request = a_request(tokens=(1, 2, 3, token), prompt_tokens=3)
        offer = KvReady(request, "p1", EPOCH, "scripted-1", kv_tokens=3, kv_bytes=256)
        subject = SUBJECTS.decode("chat", "d1")
        grant: KvGrant = await r.gateway.bus.request(subject, offer, KvGrant, timeout_s=5.0)
        again: KvGrant = await r.gateway.bus.request(subject, offer, KvGrant, timeout_s=5.0)
        assert grant == again
        r.way.granted[grant.ticket].fail(WorkerLost("nobody came"))
        await r.quiet()
        assert r.gateway.frames == []


@pytest.mark.parametrize(
    ("changes", "code", "retryable"),
    [
        ({"epoch": (0, 1)}, Code.STALE, True),
        ({"fingerprint": "another"}, Code.KV_REFUSED, True),
        ({"kv_tokens": 4}, Code.MALFORMED, False),
        ({"kv_bytes": 255}, Code.MALFORMED, False),
    ],
)
async def test_an_offer_that_must_not_be_used_is_refused(
    changes: dict[str, object], code: Code, *, retryable: bool
) -> None:
    async with relay() as r:
        r.standings["d1"].peers.learn(member_map(["d1"]))
        request = a_request(tokens=(1, 2, 3, 4), prompt_tokens=3)
        fields: dict[str, object] = {
            "request": request,
            "prefill": "p1",
            "epoch": EPOCH,
            "fingerprint": "scripted-1",
            "kv_tokens": 3,
            "kv_bytes": 256,
        }
        offer = KvReady(**{**fields, **changes})  # type: ignore[arg-type]
        answer: Rejected = await r.gateway.bus.request(SUBJECTS.decode("chat", "d1"), offer, Rejected, timeout_s=5.0)
        assert (answer.code, answer.retryable) == (code, retryable)
        assert not len(r.decodes["d1"].roster)


async def test_streams_pause_while_nats_is_away_and_go_on_without_a_gap() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=3)))
        await until(lambda: r.engine("d1").held and r.gateway.handed_off)
        r.hub.cut()
        r.engine("d1").step()
        await asyncio.sleep(0.01)
        assert len(r.gateway.tokens()) == 1
        r.hub.heal()
        await r.steps("d1", 1)
        await until(r.gateway.endings)
        assert [index for index, _ in r.gateway.tokens()] == [0, 1, 2]


async def test_a_frame_the_bus_does_not_take_ends_its_streams_and_frees_them() -> None:
    async with relay() as r:
        await decoding(r)
        bus = r.standings["d1"].bus
        bus._unsent = bus.max_pending_bytes + 1  # type: ignore[attr-defined]
        r.engine("d1").step()
        await until(lambda: not len(r.decodes["d1"].roster))
        await r.quiet()
        assert r.metric("d1", "baton_worker_lost_frames_total") == 1
        bus._unsent = 0  # type: ignore[attr-defined]
        await r.gateway.offer(a_request(attempt=1, tokens=(1, 2, 3, 4), stopping=Stopping(max_tokens=2)))
        await r.steps("d1", 1)
        await until(lambda: any(isinstance(e, Finished) for e in r.gateway.endings()))


async def test_tokens_packed_in_an_offer_are_those_the_engine_gets() -> None:
    async with relay() as r:
        await decoding(r)
        sequence = r.engine("d1").sequences["r1#0"]
        assert pack_tokens(sequence.tokens) == pack_tokens([1, 2, 3, next_token([1, 2, 3])])


async def test_a_stop_that_comes_while_the_last_frame_goes_out_adds_no_second_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with relay() as r:
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=2)))
        await until(lambda: r.engine("d1").held and r.gateway.handed_off)
        sender = r.standings["d1"].sender
        send = sender.send

        async def stop_meanwhile(gateway: str, draft: Draft) -> None:
            r.decodes["d1"].drop(WorkerLost("others have taken over"))
            await send(gateway, draft)

        monkeypatch.setattr(sender, "send", stop_meanwhile)
        r.engine("d1").step()
        await r.quiet()
        assert [type(e) for e in r.gateway.endings()] == [Finished]


async def test_a_stop_between_the_last_byte_and_its_taking_is_told_since_prefill_thinks_us_the_owner() -> None:
    async with relay() as r:
        r.way.landed = lambda: r.decodes["d1"].drop(WorkerLost("others have taken over"))
        await r.gateway.offer(a_request())
        await until(lambda: r.gateway.handed_off and r.gateway.endings())
        assert [(e.code, e.retryable) for e in r.gateway.endings() if isinstance(e, Failed)] == [
            (Code.WORKER_LOST, True)
        ]
        await r.quiet()
