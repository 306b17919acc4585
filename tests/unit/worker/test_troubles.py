"""What goes wrong between prefill and decode, and in the engines: every attempt ends once and nothing stays held."""

import time
from dataclasses import replace

import pytest

from shared.errors import Code, DeadlineExceeded, EngineFailed, KvRefused, Overloaded, WorkerLost
from shared.messages import (
    Failed,
    Finished,
    Rejected,
    Stopping,
)
from tests.fakes import a_request
from tests.unit.worker.relay import relay, until
from tests.unit.worker.scripted import INFO, expected_text


async def test_a_refused_push_goes_to_another_decode_with_the_same_buffer() -> None:
    async with relay(decodes=("d1", "d2")) as r:
        r.way.breaks = [KvRefused("checksum", "bits flipped")]
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=2)))
        await until(lambda: r.gateway.handed_off)
        taken = r.gateway.handed_off[0].decode
        await r.steps(taken, 1)
        await until(r.gateway.endings)
        assert [type(e) for e in r.gateway.endings()] == [Finished]
        assert r.gateway.text() == expected_text([1, 2, 3], 2)
        assert r.engine("p1").prefilled == 1
        await r.quiet()


async def test_pushes_that_are_always_refused_end_in_a_retryable_failure() -> None:
    async with relay(decodes=("d1", "d2")) as r:
        r.way.breaks = [KvRefused("checksum", "bits flipped") for _ in range(9)]
        await r.gateway.offer(a_request())
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert ending.retryable
        assert ending.code in {Code.KV_REFUSED, Code.WORKER_LOST}
        await r.quiet()


@pytest.mark.parametrize("error", [WorkerLost("link cut"), DeadlineExceeded("no word")])
async def test_a_push_without_an_answer_never_leaves_two_decodes_with_the_attempt(error: WorkerLost) -> None:
    async with relay(decodes=("d1", "d2")) as r:
        r.way.breaks, r.way.arrives_anyway = [error], True
        r.way.told = lambda: r.engine("d1").held or r.engine("d2").held
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=3)))
        await until(lambda: r.gateway.handed_off)
        taken = r.gateway.handed_off[0].decode
        other = "d1" if taken == "d2" else "d2"
        await until(lambda: len(r.decodes[other].roster) == 0)
        assert not r.engine(other).held
        await r.steps(taken, 2)
        await until(r.gateway.endings)
        assert [type(e) for e in r.gateway.endings()] == [Finished]
        assert r.gateway.tokens() == list(enumerate(expected_text([1, 2, 3], 3)))
        await r.quiet()


async def test_a_silent_decode_after_a_lost_push_ends_the_attempt_so_that_the_next_one_outranks_it() -> None:
    async with relay() as r:
        r.way.breaks, r.way.arrives_anyway = [WorkerLost("link cut")], True
        r.hub.loses = lambda subject, data: b"cancel" in data and ".decode." in subject
        await r.gateway.offer(a_request())
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.WORKER_LOST, True)
        r.hub.loses = lambda _subject, _data: False
        await r.gateway.cancel("r1", 0)
        await r.quiet()


async def test_a_full_decode_is_asked_again_when_it_has_room() -> None:
    async with relay() as r:
        for number in range(1, 8):
            await until(lambda: r.prefill.load().free)
            await r.gateway.offer(a_request(f"r{number}", stream=number, stopping=Stopping(max_tokens=2)))
        await until(lambda: len(r.decodes["d1"].roster) == 6)  # two in the batch, four in the wait
        assert len(r.prefill.roster) == 1
        await r.run("d1", lambda: all(r.gateway.endings(number) for number in range(1, 8)))
        assert sum(h.decode == "d1" for h in r.gateway.handed_off) == 7
        await r.quiet()


async def test_no_decode_at_all_keeps_the_slot_until_the_request_expires() -> None:
    async with relay(decodes=()) as r:
        await r.gateway.offer(a_request(expires_ms=int((time.time() + 0.4) * 1000)))
        await until(r.gateway.tokens)
        assert len(r.prefill.roster) == 1
        await until(r.gateway.endings)
        await r.quiet()


async def test_a_wrong_fingerprint_is_refused_by_decode() -> None:
    async with relay() as r:
        r.engine("d1").become(replace(INFO, fingerprint="another"))
        await r.gateway.offer(a_request(expires_ms=int((time.time() + 0.4) * 1000)))
        await until(r.gateway.endings)
        assert r.metric("d1", "baton_worker_rejections_total", code="kv_refused") >= 1
        assert r.way.pushes == 0
        await r.quiet()


# ---- engines that fail -----------------------------------------------------------------------------------------------


async def test_a_prefill_that_fails_ends_only_its_attempt() -> None:
    async with relay() as r:
        r.engine("p1").fails = EngineFailed("out of luck")
        await r.gateway.offer(a_request())
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.ENGINE_FAILED, True)
        await r.quiet()


async def test_an_insert_without_room_fails_retryably() -> None:
    async with relay() as r:
        r.engine("d1").fails = Overloaded("no blocks")
        await r.gateway.offer(a_request())
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.OVERLOADED, True)
        await r.quiet()


async def test_a_preempted_sequence_fails_retryably_and_the_others_go_on() -> None:
    async with relay() as r:
        for number in (1, 2):
            await r.gateway.offer(a_request(f"r{number}", stream=number, stopping=Stopping(max_tokens=3)))
        await until(lambda: len(r.engine("d1").held) == 2)
        r.engine("d1").step(failed=[("r1#0", Overloaded("no block is free"))])
        await r.steps("d1", 1)
        await until(lambda: r.gateway.endings(1) and r.gateway.endings(2))
        assert [(type(e), getattr(e, "retryable", None)) for e in r.gateway.endings(1)] == [(Failed, True)]
        assert [type(e) for e in r.gateway.endings(2)] == [Finished]
        await r.quiet()


@pytest.mark.parametrize("worker", ["p1", "d1"])
async def test_the_death_of_an_engine_fails_every_held_attempt_retryably(worker: str) -> None:
    async with relay() as r:
        if worker == "p1":
            r.engine("p1").may_prefill.clear()
        for number in (1, 2):
            await r.gateway.offer(a_request(f"r{number}", stream=number))
        await until(lambda: len(r.engine(worker).held) == 2)
        r.engine(worker).die()
        await until(lambda: r.gateway.endings(1) and r.gateway.endings(2))
        for number in (1, 2):
            assert [(type(e), e.code, e.retryable) for e in r.gateway.endings(number) if isinstance(e, Failed)] == [
                (Failed, Code.ENGINE_FAILED, True)
            ]
        await until(lambda: r.watching.failures == 1)
        refused = await r.gateway.offer(a_request("r3", attempt=1, stream=3))
        assert worker == "d1" or isinstance(refused, Rejected)


# ---- frames and texts that cannot be sent ----------------------------------------------------------------------------


async def test_a_frame_above_the_size_limit_goes_out_in_parts() -> None:
    async with relay() as r:
        stop = ["x" * 64]
        for number in (1, 2):
            await r.gateway.offer(a_request(f"r{number}", stream=number, stopping=Stopping(max_tokens=3, stop=stop)))
        await until(lambda: len(r.engine("d1").held) == 2)
        for stream in r.decodes["d1"]._streams._live.values():
            stream.text = _Long()
        before = len(r.gateway.frames)
        r.engine("d1").step()
        await until(lambda: len(r.gateway.frames) == before + 2)
        assert sorted(s for frame in r.gateway.frames[before:] for s in frame.streams) == [1, 2]


async def test_a_token_whose_text_fits_no_message_ends_its_stream_for_good() -> None:
    async with relay() as r:
        await r.gateway.offer(a_request())
        await until(lambda: r.engine("d1").held and r.gateway.handed_off)
        for stream in r.decodes["d1"]._streams._live.values():
            stream.text = _Long(1 << 20)
        r.engine("d1").step()
        await until(r.gateway.endings)
        ending = r.gateway.endings()[0]
        assert isinstance(ending, Failed)
        assert (ending.code, ending.retryable) == (Code.TOO_LARGE, False)
        await r.quiet()


class _Long:
    """A text whose every token is long."""

    matched = None

    def __init__(self, length: int = 600_000) -> None:
        self._length = length

    def push(self, token_id: int) -> str:
        return "y" * self._length

    def flush(self) -> str:
        return ""


class _Broken(_Long):
    def push(self, token_id: int) -> str:
        raise ValueError(token_id)


async def test_a_stream_whose_text_breaks_does_not_take_the_batch_along() -> None:
    async with relay() as r:
        for number in (1, 2):
            await r.gateway.offer(a_request(f"r{number}", stream=number, stopping=Stopping(max_tokens=3)))
        await until(lambda: len(r.engine("d1").held) == 2)
        r.decodes["d1"]._streams._live["r1#0"].text = _Broken()
        await r.steps("d1", 2)
        await until(lambda: r.gateway.endings(1) and r.gateway.endings(2))
        assert [(type(e), getattr(e, "code", "")) for e in r.gateway.endings(1)] == [(Failed, Code.INTERNAL)]
        assert [type(e) for e in r.gateway.endings(2)] == [Finished]
        await r.quiet()
