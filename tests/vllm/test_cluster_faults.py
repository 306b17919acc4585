"""A cluster with vLLM in it, hurt: clients that vanish, workers and their engines that are killed."""

import asyncio
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shared.messages import Role
from tests.e2e.vanishing import Crowd
from tests.processes import alive
from tests.vllm.asks import prompts_of, texts_of
from tests.vllm.house import READY_S, VllmCluster, busiest, descendants, engine_core, until_gone

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400), pytest.mark.asyncio(loop_scope="session")]

CLIENTS = 160
AT_ONCE = 12
ENDED_S = 60.0


async def whole(fleet: VllmCluster) -> list[str]:
    """Wait until two decodes are in the map, with a standby more where too few workers are left; the decodes' names."""
    workers = fleet.living(Role.DECODE) + fleet.living(Role.STANDBY)
    if len(workers) < 2:
        await fleet.start(Role.STANDBY, f"standby-{len(fleet.everyone)}")
    deadline = time.monotonic() + READY_S
    while True:
        found = [one.instance for group in (await fleet.map()).groups for one in group.decode if one.joined]
        if len(found) >= 2 and all(fleet.processes[name].alive for name in found):
            return found
        assert time.monotonic() < deadline, f"only {found} decode"
        await asyncio.sleep(0.2)


async def test_clients_that_vanish_at_random_points_leave_nothing_behind(
    fleet: VllmCluster, tiny_llama: Path, alone: dict[str, str]
) -> None:
    await whole(fleet)
    seed = int(os.environ.get("BATON_SEED", secrets.randbits(32)))
    sys.stdout.write(f"BATON_SEED={seed}\n")  # shown when the test fails
    address = urlsplit(fleet.url())
    crowd = Crowd(address.hostname or "", address.port or 0, seed)
    await crowd.come_and_go(range(CLIENTS), AT_ONCE)
    sys.stdout.write(f"{dict(crowd.left)}\n")
    assert crowd.left["before any answer"] > CLIENTS / 10
    assert crowd.left["amid the stream"] > CLIENTS / 10
    await fleet.quiet(60)
    assert await texts_of(fleet.url(), prompts_of(tiny_llama / "tokenizer.json")) == alone


@pytest.mark.parametrize("what", ["the worker", "its EngineCore", "a rank of its engine"])
async def test_a_decode_killed_amid_its_streams_changes_no_text_and_leaves_no_process(
    what: str, fleet: VllmCluster, tiny_llama: Path, alone: dict[str, str]
) -> None:
    decodes = await whole(fleet)
    asking = asyncio.ensure_future(texts_of(fleet.url(), prompts_of(tiny_llama / "tokenizer.json")))
    try:
        victim = fleet.processes[await busiest(fleet, decodes, 4)]
        of_engine = descendants(victim)
        assert len(of_engine) >= 2
        core = engine_core(victim)
        target = {"the worker": victim.pid, "its EngineCore": core, "a rank of its engine": of_engine[-1]}[what]
        os.kill(target, signal.SIGKILL)
        status = await victim.ended(ENDED_S)
        assert status == -signal.SIGKILL if what == "the worker" else status > 0
        assert await asking == alone
    finally:
        asking.cancel()
    await until_gone(of_engine)
    assert not alive(core)
    survivor = next(name for name in decodes if name != victim.name)
    assert fleet.processes[survivor].alive
    await fleet.quiet()


async def test_a_killed_prefill_leaves_no_process_and_its_substitute_serves(
    fleet: VllmCluster, tiny_llama: Path, alone: dict[str, str]
) -> None:
    await whole(fleet)
    victim = fleet.living(Role.PREFILL)[0]
    of_engine = descendants(victim)
    asking = asyncio.ensure_future(texts_of(fleet.url(), prompts_of(tiny_llama / "tokenizer.json")))
    try:
        await busiest(fleet, await whole(fleet), 1)
        victim.kill()
        await fleet.worker(Role.PREFILL, f"prefill-{len(fleet.everyone)}")
        assert await victim.ended() == -signal.SIGKILL
        await until_gone(of_engine)
        await asyncio.gather(asking, return_exceptions=True)
    finally:
        asking.cancel()
    assert await texts_of(fleet.url(), prompts_of(tiny_llama / "tokenizer.json")) == alone
    await fleet.quiet()
