"""Engines of several ranks hand sequences to each other, whatever their number, and say the same as one rank does."""

from pathlib import Path

import pytest

from shared.engine import Staged
from shared.messages import Health
from tests.contract.torch_engine.ranks import running, tiny
from tests.engine_house import PROMPT, House, assert_empty, extended, house, ids, memory_for, sequence

pytestmark = pytest.mark.long


async def handed_over(engines: House, p: int, d: int, tokens: list[int]) -> list[int]:
    """A whole request between engines of so many ranks."""
    prefill, decode = [await engines.worker(tensor_parallel=number, dtype="float32") for number in (p, d)]
    assert prefill.engine.info.fingerprint == decode.engine.info.fingerprint
    assert [isinstance(one.engine, Staged) for one in (prefill, decode)] == [p > 1, d > 1]
    wanted = sequence("a", tokens, temperature=0.0)
    first, buffer = await prefill.prefill(wanted)
    ending = await decode.decode(wanted, first, memory_for(decode.engine, bytes(buffer)))
    assert ending.error is None
    for worker in (prefill, decode):
        assert_empty(worker.engine)
    return [first.token_id, *ids(ending.sampled)]


@pytest.mark.parametrize(("p", "d"), [(1, 2), (2, 1), (2, 2), (2, 4)])
@pytest.mark.parametrize("variant", ["gemma 3", "qwen 3 with biases, sliding", "llama with biases, tied"])
async def test_prefill_and_decode_may_have_different_numbers_of_ranks(
    variant: str, p: int, d: int, tmp_path: Path
) -> None:
    async with house("torch", tiny(tmp_path, variant)) as engines:
        alone = await handed_over(engines, 1, 1, PROMPT * 3)
        assert await handed_over(engines, p, d, PROMPT * 3) == alone


async def test_many_sequences_come_and_go_beside_each_other_as_with_one_rank(tmp_path: Path) -> None:
    tiny(tmp_path)
    texts: dict[int, dict[str, list[int]]] = {1: {}, 2: {}}
    for world, mine in texts.items():
        async with house("torch", tmp_path, prefill_chunk=7) as engines:
            worker = await engines.worker(tensor_parallel=world)
            for turn in range(3):  # the second time the prefix cache has them
                for number in range(5):
                    key, tokens = f"{turn} {number}", [number + 3, *PROMPT * 2][: 9 + 3 * number]
                    wanted = sequence(key, tokens, temperature=0.0)
                    first, buffer = await worker.prefill(wanted)
                    await worker.engine.insert(extended(wanted, first), len(tokens), buffer)
                    mine[key] = [first.token_id]
            for key, text in mine.items():
                await worker.ending(key).over.wait()
                text.extend(worker.ending(key).tokens)
            assert_empty(worker.engine)
    assert texts[2] == texts[1]


async def test_all_devices_are_named_and_probed(tmp_path: Path) -> None:
    async with running(tiny(tmp_path)) as engine:
        assert engine.devices == {"cpu"}
        assert engine.probe() == (Health.OK, "")
