"""The torch engine through its protocol, on a tiny model: hand-off, endings, refusals, release, death."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.engine import Sampled, Step
from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.runner import Runner
from shared.engine.torch_engine.worker import UNREAD_STEPS
from shared.errors import (
    BadRequest,
    Cancelled,
    ConfigError,
    ContextTooLong,
    EngineFailed,
    KvRefused,
    Overloaded,
)
from shared.messages import Finish, Stopping
from tests.tiny_models import edit, make
from tests.torch_rig import buffer_for, sequence
from tests.waiting import until

OPTIONS: dict[str, Any] = {"block_size": 4, "num_blocks": 40, "max_num_seqs": 8, "prefill_chunk": 16}
PROMPT = [5, 17, 33, 8, 90, 121, 64]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    return directory


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[TorchEngine]:
    async with running(model) as engine:
        yield engine


class running:  # noqa: N801
    """A started engine that holds nothing when it is left."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self._engine = TorchEngine(directory, {**OPTIONS, **options})

    async def __aenter__(self) -> TorchEngine:
        await self._engine.start()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        load, blocks = self._engine.load(), self._engine.info.blocks
        await self._engine.close()
        assert (load.sequences, load.free_blocks) == (0, blocks)


async def prefilled(engine: TorchEngine, key: str, tokens: list[int], **kwargs: Any) -> tuple[Sampled, memoryview]:
    """Run a prompt to the end of its export."""
    buffer = buffer_for(engine.info, len(tokens))
    answer = await engine.prefill(sequence(key, tokens, **kwargs), buffer)
    await engine.exported(key)
    await engine.release(key)
    return answer.first, buffer


async def finished(steps: AsyncIterator[Step], *keys: str) -> dict[str, list[Sampled]]:
    """Read until all keys have ended."""
    result: dict[str, list[Sampled]] = {key: [] for key in keys}
    left = set(keys)
    while left:
        step = await anext(steps)
        assert not step.failed
        for sampled in step.sampled:
            result.setdefault(sampled.key, []).append(sampled)
            if sampled.finish is not None:
                left.discard(sampled.key)
    return result


async def relay(a: TorchEngine, b: TorchEngine, key: str, tokens: list[int], **kwargs: Any) -> list[int]:
    """Prefill on one engine, decode on the other: all generated tokens."""
    first, buffer = await prefilled(a, key, tokens, **kwargs)
    if first.finish is not None:
        return [first.token_id]
    prompt = kwargs.pop("prompt_tokens", len(tokens))
    await b.insert(sequence(key, [*tokens, first.token_id], prompt, **kwargs), len(tokens), buffer)
    rest = (await finished(b.steps(), key))[key]
    return [first.token_id, *(sampled.token_id for sampled in rest)]


async def test_a_text_crosses_engines_and_a_replay_at_any_point_continues_it(model: Path) -> None:
    async with running(model) as a, running(model) as b:
        assert a.info == b.info
        for sampling in (
            {},
            {"temperature": 1.0, "seed": 11},
            {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.5},
        ):
            whole = await relay(a, b, "whole", PROMPT, max_tokens=12, **sampling)
            assert len(whole) == 12
            for cut in (1, 5, 11):
                continued = [*PROMPT, *whole[:cut]]
                rest = await relay(a, b, "rest", continued, prompt_tokens=len(PROMPT), max_tokens=12, **sampling)
                assert rest == whole[cut:], (sampling, cut)


async def test_many_sequences_at_once_get_the_texts_they_get_alone(model: Path) -> None:
    prompts = {str(n): [3 + (n * 31 + i * 7) % 190 for i in range(1 + 5 * n)] for n in range(6)}
    async with running(model, num_blocks=120) as a, running(model, num_blocks=120) as b:
        alone = {key: await relay(a, b, key, tokens, max_tokens=9) for key, tokens in prompts.items()}
        firsts = await asyncio.gather(*(prefilled(a, key, tokens) for key, tokens in prompts.items()))
        together = {key: [first.token_id] for key, (first, _) in zip(prompts, firsts, strict=True)}
        for (key, tokens), (first, buffer) in zip(prompts.items(), firsts, strict=True):
            await b.insert(sequence(key, [*tokens, first.token_id], len(tokens), max_tokens=9), len(tokens), buffer)
        for key, sampled in (await finished(b.steps(), *prompts)).items():
            together[key] += [one.token_id for one in sampled]
    assert together == alone


async def test_a_repeated_prompt_is_found_in_the_cache_and_gives_the_same_first_token(engine: TorchEngine) -> None:
    tokens = PROMPT * 3
    buffer = buffer_for(engine.info, len(tokens))
    answers = []
    for key in "ab":
        answers.append(await engine.prefill(sequence(key, tokens), buffer))
        await engine.exported(key)
        await engine.release(key)
    assert [answer.cached_tokens for answer in answers] == [0, 20]
    assert answers[0].first.token_id == answers[1].first.token_id


async def test_the_exported_buffer_holds_nothing_beyond_the_sequence(engine: TorchEngine) -> None:
    await prefilled(engine, "other", [9] * 40)
    _, buffer = await prefilled(engine, "mine", PROMPT)  # 7 tokens: the last of 8 places is unused
    layers, width = 4, 2 * 24 * 4
    plane = 4 * width
    start = engine.info.block_bytes
    for part in range(layers * 2):
        end = start + (part + 1) * plane
        assert bytes(buffer[end - width : end]) == bytes(width)


async def test_endings(model: Path) -> None:
    async with running(model) as a, running(model) as b:
        text = await relay(a, b, "x", PROMPT, max_tokens=8)
        last = text[4]
        assert last not in text[:4]
        stop = Stopping(max_tokens=8, stop_token_ids=[last])
        first, buffer = await prefilled(a, "s", PROMPT)
        await b.insert(sequence("s", [*PROMPT, first.token_id], len(PROMPT), stopping=stop), len(PROMPT), buffer)
        sampled = (await finished(b.steps(), "s"))["s"]
        assert [one.token_id for one in sampled] == text[1:5]
        assert (sampled[-1].finish, sampled[-1].stop_token) == (Finish.STOP, last)
        later = Stopping(max_tokens=8, stop_token_ids=[last], min_tokens=7)
        await b.insert(sequence("m", [*PROMPT, first.token_id], len(PROMPT), stopping=later), len(PROMPT), buffer)
        sampled = (await finished(b.steps(), "m"))["m"]
        assert last not in [one.token_id for one in sampled][:5]
        assert len(sampled) >= 6


async def test_an_end_of_sequence_token_ends_unless_ignored(model: Path) -> None:
    eos = 2
    forced: dict[str, Any] = {"logit_bias": {eos: 1000.0}}
    async with running(model) as engine:
        first, _ = await prefilled(engine, "a", PROMPT, **forced)
        assert (first.token_id, first.finish, first.stop_token) == (eos, Finish.STOP, eos)
        ignoring = Stopping(max_tokens=5, ignore_eos=True)
        first, _ = await prefilled(engine, "b", PROMPT, stopping=ignoring, **forced)
        assert (first.token_id, first.finish) == (eos, None)
        first, _ = await prefilled(engine, "c", PROMPT, stopping=Stopping(max_tokens=5, min_tokens=2), **forced)
        assert (first.token_id == eos, first.finish) == (False, None)
        first, _ = await prefilled(engine, "d", PROMPT, max_tokens=1)
        assert first.finish is Finish.LENGTH


async def test_the_end_of_the_context_ends_a_sequence_for_length(model: Path) -> None:
    async with running(model, max_model_len=12) as a, running(model, max_model_len=12) as b:
        text = await relay(a, b, "x", PROMPT, max_tokens=100)
        assert len(PROMPT) + len(text) == 12
        with pytest.raises(ContextTooLong):
            await prefilled(a, "long", [5] * 12)


async def test_out_of_blocks_the_youngest_fails_retryably_and_the_oldest_goes_on(model: Path) -> None:
    async with running(model) as a, running(model, num_blocks=8) as b:
        inserted = []
        for key in ("old", "young"):
            first, buffer = await prefilled(a, key, PROMPT)
            tokens = [*PROMPT, first.token_id]
            await b.insert(sequence(key, tokens, len(PROMPT), max_tokens=20), len(PROMPT), buffer)
            inserted.append(key)
        failed: dict[str, Exception] = {}
        ended: list[str] = []
        async for step in b.steps():
            failed.update(step.failed)
            ended += [sampled.key for sampled in step.sampled if sampled.finish]
            if ended:
                break
        assert ended == ["old"]
        assert list(failed) == ["young"]
        assert isinstance(failed["young"], Overloaded)
        assert failed["young"].retryable


async def test_what_cannot_be_served_is_refused_and_leaves_nothing(engine: TorchEngine) -> None:
    cases: list[tuple[list[int], int, dict[str, Any]]] = [
        ([], 0, {}),
        (PROMPT, 99, {}),
        ([5, 199], 0, {}),
        ([5, -1], 0, {}),
        (PROMPT, 0, {"logit_bias": {199: 1.0}}),
        (PROMPT, 0, {"stopping": Stopping(max_tokens=1, stop_token_ids=[4000])}),
        ([5] * 160, 0, {}),
    ]
    for tokens, prompt, kwargs in cases:
        with pytest.raises(BadRequest):
            await engine.prefill(sequence("bad", tokens, prompt, **kwargs), buffer_for(engine.info, len(tokens)))
    with pytest.raises(BadRequest, match="KV buffer"):
        await engine.prefill(sequence("bad", PROMPT), buffer_for(engine.info, len(PROMPT))[:-1])
    with pytest.raises(Overloaded):
        await asyncio.gather(*(prefilled(engine, str(n), [n + 5] * 60) for n in range(6)))
    for n in range(6):
        await engine.release(str(n))
    assert engine.load().free_blocks == engine.info.blocks


async def test_kv_that_cannot_be_the_sequences_is_refused(engine: TorchEngine) -> None:
    first, buffer = await prefilled(engine, "a", PROMPT)
    whole = sequence("a", [*PROMPT, first.token_id], len(PROMPT))
    for kv_tokens, view in ((6, buffer), (8, buffer), (0, buffer[:0]), (7, buffer[:-4])):
        with pytest.raises(KvRefused) as refusal:
            await engine.insert(whole, kv_tokens, view)
        assert refusal.value.reason == "length"
    assert engine.load().sequences == 0


async def test_a_full_batch_refuses_retryably(model: Path) -> None:
    async with running(model) as a, running(model, max_num_seqs=1) as b:
        first, buffer = await prefilled(a, "a", PROMPT)
        tokens = [*PROMPT, first.token_id]
        await b.insert(sequence("1", tokens, len(PROMPT), max_tokens=30), len(PROMPT), buffer)
        with pytest.raises(Overloaded):
            await b.insert(sequence("2", tokens, len(PROMPT)), len(PROMPT), buffer)
        with pytest.raises(BadRequest, match="already"):
            await b.insert(sequence("1", tokens, len(PROMPT)), len(PROMPT), buffer)
        await b.release("1")
        await b.insert(sequence("2", tokens, len(PROMPT), max_tokens=2), len(PROMPT), bytes_view(buffer))
        await finished(b.steps(), "2")


def bytes_view(buffer: memoryview) -> memoryview:
    return memoryview(bytes(buffer))  # read-only, as a mapped file may be


async def test_release_is_allowed_in_every_state_and_lets_go_of_the_buffer(model: Path) -> None:
    async with running(model, prefill_chunk=1) as engine:
        await engine.release("never heard of")
        raw = bytearray(engine.info.kv_bytes(100))
        waiting = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), memoryview(raw)))
        await until(lambda: engine.load().steps > 0, "a step ran")
        exporting = asyncio.create_task(engine.exported("a"))
        await asyncio.sleep(0)
        await asyncio.gather(engine.release("a"), engine.release("a"))
        for task in (waiting, exporting):
            with pytest.raises(Cancelled):
                await task
        with pytest.raises(Cancelled):
            await engine.exported("a")
        del waiting, exporting, task
        raw.extend(b"resizing works only when no view is left")
        answer = await engine.prefill(sequence("b", PROMPT), buffer_for(engine.info, len(PROMPT)))
        await engine.release("b")  # exported or not
        assert answer.first.key == "b"


async def test_a_cancelled_prefill_leaves_nothing(model: Path) -> None:
    async with running(model, prefill_chunk=1) as engine:
        task = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), buffer_for(engine.info, 100)))
        await until(lambda: engine.load().steps > 0, "a step ran")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.load().sequences == 0
        await prefilled(engine, "a", PROMPT)


async def test_a_released_decode_brings_no_more_tokens(model: Path) -> None:
    async with running(model) as engine:
        first, buffer = await prefilled(engine, "a", PROMPT)
        tokens = [*PROMPT, first.token_id]
        for key in "ab":
            await engine.insert(sequence(key, tokens, len(PROMPT), max_tokens=60), len(PROMPT), buffer)
        await engine.release("a")
        while engine._unread:
            engine._unread.popleft()
        sampled = await finished(engine.steps(), "b")
        assert set(sampled) == {"b"}


async def test_a_slow_reader_pauses_the_engine_and_loses_nothing(model: Path) -> None:
    async with running(model, num_blocks=400) as engine:
        first, buffer = await prefilled(engine, "a", [5])
        prompts = [("a", 200), ("b", 200)]
        for key, n in prompts:
            await engine.insert(sequence(key, [5, first.token_id], 1, max_tokens=n), 1, buffer)
            await until(lambda: engine.load().steps > 150, "150 steps ran")
        await until(lambda: len(engine._unread) == UNREAD_STEPS, "the unread steps reached their bound")
        steps = engine.load().steps
        await asyncio.sleep(0.05)
        assert engine.load().steps == steps
        sampled = await finished(engine.steps(), "a", "b")
        assert [len(sampled[key]) for key in "ab"] == [199, 199]


async def test_logprobs_come_with_the_tokens(engine: TorchEngine) -> None:
    first, _ = await prefilled(engine, "a", PROMPT, logprobs=3)
    assert first.alternatives is not None
    assert first.alternatives.top[0] == (first.token_id, first.alternatives.logprob)
    assert len(first.alternatives.top) == 3


async def test_when_the_engine_dies_everyone_who_waits_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    engine = TorchEngine(model, OPTIONS)
    await engine.start()
    reader = asyncio.create_task(anext(engine.steps()))
    monkeypatch.setattr(Runner, "step", broken)
    with pytest.raises(EngineFailed, match="ZeroDivisionError") as death:
        await engine.prefill(sequence("a", PROMPT), buffer_for(engine.info, len(PROMPT)))
    assert death.value.fatal
    with pytest.raises(EngineFailed):
        await reader
    with pytest.raises(EngineFailed):
        await engine.insert(sequence("b", PROMPT), 6, buffer_for(engine.info, 6))
    await engine.release("a")
    await engine.close()
    await engine.close()


async def test_close_ends_the_steps_and_fails_what_waits(model: Path) -> None:
    engine = TorchEngine(model, {**OPTIONS, "prefill_chunk": 1})
    await engine.start()
    reader = asyncio.create_task(anext(engine.steps(), None))
    waiting = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), buffer_for(engine.info, 100)))
    await until(lambda: engine.load().steps > 0, "a step ran")
    await engine.close()
    assert await reader is None
    with pytest.raises(EngineFailed, match="closed"):
        await waiting
    with pytest.raises(EngineFailed):
        await engine.prefill(sequence("b", PROMPT), buffer_for(engine.info, len(PROMPT)))


async def test_an_engine_that_never_started_can_be_closed(model: Path) -> None:
    engine = TorchEngine(model, OPTIONS)
    with pytest.raises(EngineFailed):
        _ = engine.info
    await engine.close()
    assert engine.load() == (0, 0, 0)


async def test_a_model_that_cannot_be_served_fails_the_start_with_the_reason(model: Path, tmp_path: Path) -> None:
    make("llama", tmp_path)
    edit(tmp_path, rope_parameters={"rope_type": "yarn", "factor": 2.0})
    for directory, options, reason in (
        (tmp_path, {}, "yarn"),
        (model, {"device": "cuda:7"}, "device"),
        (model, {"max_model_len": 9999}, "max_model_len"),
        (tmp_path / "nowhere", {}, "config.json"),
    ):
        engine = TorchEngine(directory, {**OPTIONS, **options})
        with pytest.raises(EngineFailed, match=reason) as failure:
            await engine.start()
        assert failure.value.fatal
        await engine.close()
    with pytest.raises(ConfigError):
        TorchEngine(model, {"no_such_option": 1})


async def test_fingerprints_agree_exactly_where_buffers_may_be_exchanged(model: Path, tmp_path: Path) -> None:
    async def fingerprint(directory: Path, **options: Any) -> str:
        async with running(directory, **options) as engine:
            return engine.info.fingerprint

    make("gemma 3", tmp_path / "same")
    make("gemma 3", tmp_path / "other", seed=1)
    base = await fingerprint(model)
    assert await fingerprint(tmp_path / "same") == base
    assert await fingerprint(model, num_blocks=77, max_num_seqs=3, prefill_chunk=5) == base
    others = [
        await fingerprint(tmp_path / "other"),
        await fingerprint(model, block_size=8),
        await fingerprint(model, dtype="bfloat16"),
        await fingerprint(model, quantization="int8"),
    ]
    assert len({base, *others}) == 5
