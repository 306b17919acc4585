"""The real Gemma 3 270M: greedy text is transformers' text, by whatever way the tokens were computed.

Twenty prompts of 1 to 1,103 tokens; the sliding window is 512. A text is transformers' greedy text exactly when
transformers, given the text, finds each of its tokens the likeliest after those before it; one forward pass shows that.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from shared.engine.torch_engine.engine import TorchEngine
from tests.torch_rig import Rig, buffer_for, sequence

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

BOS = 2
NEW = 12
LENGTHS = [1, 2, 5, 9, 15, 16, 17, 24, 31, 33, 48, 64, 100, 127, 200, 300, 505, 513, 700, 1103]
OPTIONS: dict[str, Any] = {"kv_cache_mb": 384, "prefill_chunk": 300, "max_num_seqs": 20}
STORY = """\
The harbour town of Kessel had three clocks, and no two of them agreed. The oldest, in the customs house, had
been built by a clockmaker who trusted the tides more than the sun. The second belonged to the railway, and
was always four minutes fast, so that passengers would not be late. The third stood in the window of a bakery,
and showed the time at which the bread had been put into the oven. A traveller who asked for the hour was told
to choose. In the spring of 1911 a young surveyor arrived with two trunks of instruments and a letter from the
ministry. Her task was simple: measure the coast from the lighthouse to the river, and send the numbers to the
capital before winter. She rented a room above the bakery, bought a bicycle, and on the first dry morning rode
out along the cliffs. """
BEGINNINGS = [
    "", " The", "Once upon a time", "The capital of France is Paris. The capital of Italy is",
    "def add(a, b):\n    return a + b\n\ndef multiply(a, b):\n", "1, 2, 3, 4, 5, 6, 7,", "Dear Sir or Madam,\n\n",
    "Q: What do bees make?\nA: Honey.\nQ: What do cows give?\nA:", "Photosynthesis is the process by which",
    "Zwei mal drei macht vier,", "El perro de mi hermana", "The three primary colours are", "In 1969, Neil Armstrong",
    "<html>\n<head>\n<title>", "To make an omelette, first", "SELECT name FROM users WHERE", "The opposite of hot is",
    "Chapter 1\n\n", "It was the best of times,", "Water boils at",
]  # fmt: skip


@pytest.fixture(scope="module")
def prompts(directory: Path) -> dict[str, list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    result = {}
    for length, beginning in zip(LENGTHS, BEGINNINGS, strict=True):
        ids = tokenizer.encode((beginning + " " + STORY) * 8, add_special_tokens=False).ids
        result[str(length)] = [BOS, *ids][:length]
    return result


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def texts(directory: Path, prompts: dict[str, list[int]]) -> dict[str, list[int]]:
    """Generated one prompt after the other, through KV export and import between two engines."""

    async def generate() -> dict[str, list[int]]:
        prefill, decode = TorchEngine(directory, OPTIONS), TorchEngine(directory, OPTIONS)
        await asyncio.gather(prefill.start(), decode.start())
        result = {}
        for key, tokens in prompts.items():
            start = await begun(prefill, key, tokens)
            result[key] = (await finished(decode, {key: start}, prompts))[key]
        await asyncio.gather(prefill.close(), decode.close())
        return result

    return asyncio.run(generate())


@pytest.fixture
async def engines(directory: Path) -> AsyncIterator[list[TorchEngine]]:
    """Two engines over one model, as two processes would have them; closed and checked for leaks."""
    pair = [TorchEngine(directory, OPTIONS), TorchEngine(directory, OPTIONS)]
    for engine in pair:
        await engine.start()
    yield pair
    for engine in pair:
        load = engine.load()
        await engine.close()
        assert (load.sequences, load.free_blocks) == (0, engine.info.blocks)


async def begun(engine: TorchEngine, key: str, tokens: list[int]) -> tuple[int, memoryview]:
    """Run the prompt: its first token and its KV."""
    buffer = buffer_for(engine.info, len(tokens))
    answer = await engine.prefill(sequence(key, tokens, max_tokens=NEW), buffer)
    await engine.exported(key)
    await engine.release(key)
    return answer.first.token_id, buffer


async def finished(
    engine: TorchEngine, starts: dict[str, tuple[int, memoryview]], prompts: dict[str, list[int]]
) -> dict[str, list[int]]:
    """Decode all of them in one batch to their ends."""
    result = {}
    for key, (first, buffer) in starts.items():
        tokens = prompts[key]
        await engine.insert(sequence(key, [*tokens, first], len(tokens), max_tokens=NEW), len(tokens), buffer)
        result[key] = [first]
    left = set(starts)
    steps = engine.steps()
    while left:
        step = await anext(steps)
        assert not step.failed
        for sampled in step.sampled:
            result[sampled.key].append(sampled.token_id)
            if sampled.finish is not None:
                left.remove(sampled.key)
    return result


def test_greedy_text_is_transformers_text(
    texts: dict[str, list[int]], prompts: dict[str, list[int]], reference: Any
) -> None:
    for key, tokens in prompts.items():
        given = torch.tensor([tokens + texts[key][:-1]])
        with torch.no_grad():
            likeliest = reference(given, logits_to_keep=len(texts[key])).logits[0].argmax(-1).tolist()
        assert texts[key] == likeliest, key


def test_logits_are_the_same_bit_for_bit_alone_and_in_a_batch(directory: Path, prompts: dict[str, list[int]]) -> None:
    rig = Rig(directory, block_size=16, num_blocks=160, prefill_chunk=4096, enable_prefix_cache=False)
    some = {key: prompts[key] for key in ("2", "17", "64", "513", "700")}
    alone = {key: rig.feed(key, tokens, prompt=len(tokens) - 1) for key, tokens in some.items()}
    runs = {key: rig.add(key, tokens[:-1]) for key, tokens in some.items()}
    prompted = rig.step()
    for key, run in runs.items():
        rig.decode(run)
        run.tokens.append(some[key][-1])
    decoded = rig.step()
    for key in some:
        assert torch.equal(prompted[key], alone[key][0]), key
        assert torch.equal(decoded[key], alone[key][1]), key


async def test_in_one_batch_the_texts_are_the_same(
    engines: list[TorchEngine], texts: dict[str, list[int]], prompts: dict[str, list[int]]
) -> None:
    prefill, decode = engines
    starts = await asyncio.gather(*(begun(prefill, key, tokens) for key, tokens in prompts.items()))
    assert await finished(decode, dict(zip(prompts, starts, strict=True)), prompts) == texts


async def test_with_a_prefix_from_the_cache_the_texts_are_the_same(
    engines: list[TorchEngine], texts: dict[str, list[int]], prompts: dict[str, list[int]]
) -> None:
    prefill, decode = engines
    some = {key: prompts[key] for key in ("17", "64", "300", "700")}
    for key, tokens in some.items():
        await begun(prefill, key, tokens)
    buffer = buffer_for(prefill.info, 700)
    cached = (await prefill.prefill(sequence("again", prompts["700"]), buffer)).cached_tokens
    await prefill.release("again")
    assert cached == 688
    starts = {key: await begun(prefill, key, tokens) for key, tokens in some.items()}
    assert await finished(decode, starts, prompts) == {key: texts[key] for key in some}


@pytest.mark.long
async def test_after_the_kv_has_crossed_to_another_process_the_texts_are_the_same(
    directory: Path, texts: dict[str, list[int]], prompts: dict[str, list[int]], tmp_path: Path
) -> None:
    engine = TorchEngine(directory, {**OPTIONS, "enable_prefix_cache": False})
    await engine.start()
    job: dict[str, Any] = {"directory": str(directory), "options": OPTIONS, "sequences": {}}
    for key, tokens in prompts.items():
        first, buffer = await begun(engine, key, tokens)
        job["sequences"][key] = {
            "tokens": [*tokens, first],
            "prompt_tokens": len(tokens),
            "max_tokens": NEW,
            "kv": bytes(buffer),
        }
    await engine.close()
    path = tmp_path / "job"
    path.write_bytes(msgpack.packb(job))
    child = [sys.executable, "-m", "tests.torch_child", str(path)]
    done = await asyncio.to_thread(subprocess.run, child, capture_output=True, timeout=300, check=True)
    rest = json.loads(done.stdout)
    assert {key: [job["sequences"][key]["tokens"][-1], *rest[key]] for key in rest} == texts


@pytest.mark.long
def test_greedy_text_is_what_transformers_generates(
    texts: dict[str, list[int]], prompts: dict[str, list[int]], reference: Any
) -> None:
    for key, tokens in prompts.items():
        given = torch.tensor([tokens])
        whole = reference.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW, do_sample=False)
        assert texts[key] == whole[0, len(tokens) :].tolist(), key


@pytest.mark.long
async def test_a_sampled_text_is_the_same_alone_in_a_batch_and_continued_elsewhere(
    engines: list[TorchEngine], prompts: dict[str, list[int]]
) -> None:
    prefill, decode = engines
    some = {key: prompts[key] for key in ("1", "9", "33", "200", "513")}

    async def text(key: str, tokens: list[int], prompt_tokens: int) -> list[int]:
        asked: dict[str, Any] = {"max_tokens": NEW, "temperature": 1.0, "top_p": 0.95, "seed": int(key)}
        buffer = buffer_for(prefill.info, len(tokens))
        first = (await prefill.prefill(sequence(key, tokens, prompt_tokens, **asked), buffer)).first.token_id
        await prefill.exported(key)
        await prefill.release(key)
        await decode.insert(sequence(key, [*tokens, first], prompt_tokens, **asked), len(tokens), buffer)
        result = [first]
        async for step in decode.steps():
            result += [sampled.token_id for sampled in step.sampled if sampled.key == key]
            if any(sampled.finish for sampled in step.sampled if sampled.key == key):
                break
        return result

    for key, tokens in some.items():
        whole = await text(key, tokens, len(tokens))
        assert await text(key, [*tokens, *whole[:5]], len(tokens)) == whole[5:]
