"""What becomes of an engine of several ranks when one of them dies, hangs or cannot start, or the worker dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shared.engine.torch_engine.ranks.engine import RankedEngine
from shared.errors import ConfigError, EngineFailed
from shared.messages import Stopping
from tests.contract.torch_engine.ranks import pids, running, tiny
from tests.engine_house import PROMPT, SIZES, Worker, buffer_for, extended, sequence
from tests.processes import alive
from tests.shared_arena import SharedArena
from tests.waiting import until

SOON_S = 10.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny"))


async def decoding(engine: RankedEngine) -> None:
    """Have it decode a text that will not end soon."""
    worker = Worker(engine, reads=False)
    wanted = sequence("long", PROMPT, stopping=Stopping(max_tokens=900))
    first, buffer = await worker.prefill(wanted)
    await engine.insert(extended(wanted, first), len(PROMPT), buffer)


async def death_of(engine: RankedEngine) -> EngineFailed:
    """What the reader of its steps is told, soon."""

    async def read() -> None:
        async for _ in engine.steps():
            pass

    with pytest.raises(EngineFailed) as death:
        await asyncio.wait_for(read(), SOON_S)
    assert death.value.fatal
    return death.value


async def test_a_follower_that_is_killed_while_nothing_runs_ends_the_engine(model: Path) -> None:
    async with running(model) as engine:
        os.kill(pids(engine)[0], signal.SIGKILL)
        assert "rank 1 has ended: exit status -9" in str(await death_of(engine))
        with pytest.raises(EngineFailed, match="rank 1 has ended"):
            await engine.prefill(sequence("late", PROMPT), buffer_for(engine, len(PROMPT)))


@pytest.mark.long
async def test_a_follower_that_is_killed_in_a_step_ends_the_engine_and_its_other_ranks(model: Path) -> None:
    async with running(model, 4, max_model_len=1000, num_blocks=300) as engine:
        await decoding(engine)
        followers = pids(engine)
        await until(lambda: engine.load().steps > 3, "it decodes")
        os.kill(followers[1], signal.SIGKILL)
        assert "rank 2 has ended: exit status -9" in str(await death_of(engine))
        await until(lambda: not any(alive(pid) for pid in followers), "all are gone", SOON_S)


async def test_a_follower_that_hangs_ends_the_engine_when_the_step_takes_too_long(model: Path) -> None:
    async with running(model, max_model_len=1000, num_blocks=300, rank_timeout_s=2) as engine:
        await decoding(engine)
        os.kill(pids(engine)[0], signal.SIGSTOP)
        assert "has not ended within 2 s" in str(await death_of(engine))


async def test_a_follower_that_hangs_while_a_buffer_is_exported_is_noticed_too(model: Path) -> None:
    async with running(model, rank_timeout_s=2) as engine:
        os.kill(pids(engine)[0], signal.SIGSTOP)
        with pytest.raises(EngineFailed, match="has not ended within 2 s"):
            async with asyncio.timeout(SOON_S):
                await engine.prefill(sequence("a", PROMPT), buffer_for(engine, len(PROMPT)))


async def test_a_model_that_cannot_be_split_so_is_refused_at_start_and_leaves_no_process(model: Path) -> None:
    before = psutil.Process().children()
    engine = RankedEngine(model, {**SIZES, "tensor_parallel": 3})
    engine.stage(SharedArena.arena())
    with pytest.raises(EngineFailed, match="3 ranks cannot share 4 attention heads equally"):
        await engine.start()
    await engine.close()
    assert psutil.Process().children() == before


async def test_without_an_arena_it_says_what_it_needs(model: Path) -> None:
    engine = RankedEngine(model, {**SIZES, "tensor_parallel": 2})
    with pytest.raises(EngineFailed, match="needs the arena"):
        await engine.start()
    await engine.close()


async def test_a_follower_that_cannot_load_says_why(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_device(first: str, world: int) -> list[str]:
        return [first, *["cuda:7"] * (world - 1)]

    monkeypatch.setattr("shared.engine.torch_engine.ranks.leader.device_names", without_a_device)
    before = psutil.Process().children()
    engine = RankedEngine(model, {**SIZES, "tensor_parallel": 2})
    engine.stage(SharedArena.arena())
    with pytest.raises(EngineFailed, match=r"(?s)rank 1: .*engine_options\.device"):
        await engine.start()
    await engine.close()
    assert psutil.Process().children() == before


def test_an_option_that_is_none_is_refused_before_anything_starts(model: Path) -> None:
    with pytest.raises(ConfigError, match="tensor_parallel"):
        RankedEngine(model, {"tensor_parallel": "two"})


OWNER = """
import asyncio, sys
from pathlib import Path
from tests.contract.torch_engine.ranks import pids, running

async def main():
    async with running(Path(sys.argv[1])) as engine:
        print(*pids(engine), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_death_of_the_worker_ends_its_followers(model: Path) -> None:
    root = Path(__file__).parents[3]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(model)], cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with owner:
        assert owner.stdout is not None
        followers = [int(word) for word in owner.stdout.readline().split()]
        assert followers
        assert all(alive(pid) for pid in followers)
        os.killpg(owner.pid, signal.SIGINT)  # as at a terminal: the worker has to end first what it has begun
        owner.kill()
    deadline = time.monotonic() + SOON_S
    while any(alive(pid) for pid in followers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
