"""The torch engine with staging on its device: prompts leave from there and sequences begin from there.

On the CPU, with memory that stands in for a device's; tests/gpu has the same on a real one.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.engine import OnDevice
from shared.errors import EngineFailed
from shared.kv.arena import Arena
from shared.kv.device_arena import DeviceError
from tests.engine_house import PROMPT, House, extended, house, ids, relay, sequence
from tests.fake_device import FakeDevice
from tests.kv_ends import MIB
from tests.staged_engines import Side, handed_over

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    edit(directory, eos_token_id=None, max_position_embeddings=1024)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture
async def engines(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    from shared.engine.torch_engine import executor

    monkeypatch.setattr(executor, "open_memory", lambda _, nbytes: FakeDevice(nbytes))
    async with house("torch", tiny) as made:
        yield made


@pytest.mark.parametrize("tokens", [PROMPT[:8], PROMPT, PROMPT * 5])
async def test_a_request_goes_from_device_to_device(engines: House, tokens: list[int]) -> None:
    plain = [await engines.worker() for _ in range(2)]
    expected = ids(await relay(*plain, sequence("a", tokens)))
    prefill, decode = await Side.open(engines), await Side.open(engines)
    assert await handed_over(prefill, decode, sequence("a", tokens)) == ("cuda_ipc", expected)


@pytest.mark.parametrize(("mirrored", "way"), [((0, 4), "shm"), ((4, 0), "shm"), ((4, 2), "shm"), ((0, 0), "shm")])
async def test_with_less_on_either_side_it_goes_by_the_host_with_the_same_text(
    engines: House, mirrored: tuple[int, int], way: str
) -> None:
    plain = [await engines.worker() for _ in range(2)]
    expected = ids(await relay(*plain, sequence("a", PROMPT * 3)))
    prefill, decode = [await Side.open(engines, size * MIB) for size in mirrored]
    assert await handed_over(prefill, decode, sequence("a", PROMPT * 3)) == (way, expected)
    assert await handed_over(prefill, decode, sequence("b", PROMPT * 3), shared_memory=False) == ("tcp", expected)


async def test_a_range_beyond_the_devices_staging_is_filled_in_host_memory(engines: House) -> None:
    expected = ids(await relay(await engines.worker(), await engines.worker(), sequence("a", PROMPT)))
    prefill, decode = await Side.open(engines, 4096), await Side.open(engines)
    low = prefill.arena.reserve(4096)
    assert prefill.arena.device is not None
    assert prefill.arena.device.size == 4096
    first, staging = await prefill.prompt(sequence("a", PROMPT))
    assert not prefill.arena.on_device
    ending = await decode.worker.decode(sequence("a", PROMPT), first, staging.view)
    assert [first.token_id, *ending.tokens] == expected
    low.release()
    staging.release()


async def test_what_is_computed_here_is_decoded_here_without_leaving_the_device(engines: House) -> None:
    expected = ids(await relay(await engines.worker(), await engines.worker(), sequence("a", PROMPT)))
    both = await Side.open(engines)
    first, staging = await both.prompt(sequence("a", PROMPT))
    assert both.arena.on_device == {staging.offset}
    assert bytes(staging.view) == b"\xa5" * staging.nbytes
    ending = await both.worker.decode(sequence("a", PROMPT), first, staging.view)
    assert [first.token_id, *ending.tokens] == expected
    staging.release()
    assert not both.arena.on_device


async def test_a_buffer_that_grows_is_whole_in_host_memory(engines: House) -> None:
    expected = ids(await relay(await engines.worker(), await engines.worker(), sequence("a", PROMPT * 3)))
    prefill, plain = await Side.open(engines, prefill_chunk=8), await engines.worker()
    first, staging = await prefill.prompt(sequence("a", PROMPT * 3), grows=True)
    assert not prefill.arena.on_device
    ending = await plain.decode(sequence("a", PROMPT * 3), first, staging.view)
    assert [first.token_id, *ending.tokens] == expected
    staging.release()


async def test_buffers_outside_the_arena_and_views_of_a_received_one_are_as_ever(engines: House) -> None:
    side = await Side.open(engines)
    expected = ids(await relay(side.worker, side.worker, sequence("a", PROMPT)))
    wanted = sequence("b", PROMPT)
    first, staging = await side.prompt(wanted)
    device = side.arena.device
    assert isinstance(device, FakeDevice)
    longer = side.arena.reserve(staging.nbytes + 12)
    device[longer.offset : longer.offset + staging.nbytes] = device[staging.offset : staging.offset + staging.nbytes]
    side.arena.on_device.add(longer.offset)
    await side.worker.engine.insert(extended(wanted, first), len(PROMPT), longer.view[: staging.nbytes])
    ending = side.worker.ending("b")
    await ending.over.wait()
    assert [first.token_id, *ending.tokens] == expected
    staging.release()
    longer.release()


async def test_memory_that_cannot_be_had_is_an_error_and_the_engine_lives(
    engines: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.engine.torch_engine import executor

    def refuse(*_: object) -> None:
        raise EngineFailed("no staging memory") from DeviceError("out of memory")

    monkeypatch.setattr(executor, "open_memory", refuse)
    worker, arena = await engines.worker(), Arena(MIB)
    assert isinstance(worker.engine, OnDevice)
    with pytest.raises(EngineFailed, match="no staging memory"):
        await worker.engine.stage_on_device(arena, MIB)
    assert arena.device is None
    assert len(await relay(worker, worker, sequence("a", PROMPT))) == 12


async def test_the_devices_memory_goes_with_the_engine(engines: House) -> None:
    side = await Side.open(engines)
    await side.worker.close()
    assert side.arena.device is None
