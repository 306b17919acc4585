"""Lines that are cut, silent, or open one way only (F15, F16, F18), in a cluster whose every line is a wire.

Every stream that runs meanwhile ends whole; afterwards everybody is on the map, nothing is held, new requests succeed.
"""

import asyncio
import time
from random import Random

import pytest

from shared.messages import Role
from tests.faults.load import Load, fresh
from tests.faults.wire import Wire
from tests.faults.wired import Wired

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAMS, TOKENS = 6, 700
LONG_S = 4.0
"""Beyond the lease's time to live and the time after which silence is a loss."""
MOST_HURT = [
    ("nats", "decode", "cut"),
    ("nats", "gateway", "cut"),
    ("nats", "monitor", "deaf"),
    ("redis", "gateway", "cut"),
]
REST = [
    *(
        ("nats", who, how)
        for who in ("decode", "prefill", "gateway", "monitor")
        for how in ("cut", "silent", "deaf", "mute")
    ),
    *(("redis", who, how) for who in ("decode", "prefill", "gateway", "monitor") for how in ("cut", "silent", "mute")),
]


async def hurt_wire(wire: Wire, how: str) -> None:
    match how:
        case "cut":
            await wire.cut()
        case "reset":
            wire.reset()
        case "silent":
            wire.hold()
        case "deaf":  # the instance at its end hears nothing and is heard
            wire.down.hold()
        case "mute":
            wire.up.hold()
        case "single bytes":
            wire.up.slice_bytes = wire.down.slice_bytes = 1


async def victim(hurt: Wired, who: str) -> str:
    """Name the one that it hurts most: of the decodes, one that has streams."""
    return (await hurt.cluster.holders())[0] if who == Role.DECODE else f"{who}-1"


async def judge(hurt: Wired, load: Load, seed: int) -> None:
    await load.whole()
    await hurt.heal()
    healed = time.monotonic()
    while (await hurt.cluster.metrics("monitor-1"))["baton_map_members"] < 4:
        assert time.monotonic() < healed + 20, "not everybody is on the map again"
        await asyncio.sleep(0.05)
    await fresh(hurt.url, seed=seed)
    await hurt.cluster.quiet()


async def survive(hurt: Wired, wires: list[Wire], how: str, seconds: float, load: Load) -> None:
    for wire in wires:
        await hurt_wire(wire, how)
    await asyncio.sleep(seconds)
    for wire in wires:
        await wire.heal()
    await judge(hurt, load, 1)


@pytest.mark.parametrize(
    ("server", "who", "how"),
    [*MOST_HURT, *(pytest.param(*one, marks=pytest.mark.long) for one in REST if one not in MOST_HURT)],
)
async def test_an_instance_apart_from_a_server(hurt: Wired, server: str, who: str, how: str) -> None:
    load = Load(hurt.url, STREAMS, TOKENS, seed=10)
    await load.under_way()
    wires = hurt.nats if server == "nats" else hurt.redis
    await survive(hurt, [wires[await victim(hurt, who)]], how, LONG_S, load)


@pytest.mark.parametrize("how", ["cut", "silent", "single bytes", pytest.param("deaf", marks=pytest.mark.long)])
async def test_a_decode_that_no_kv_reaches(hurt: Wired, how: str) -> None:
    await hurt_wire(hurt.kv["decode-1"], how)
    hurt.kv["decode-1"].reset()  # also the connections that are kept
    await judge(hurt, Load(hurt.url, STREAMS, 60, seed=30), 31)


@pytest.mark.parametrize("how", ["reset", "single bytes"])
@pytest.mark.parametrize("who", ["decode", pytest.param("gateway", marks=pytest.mark.long)])
async def test_a_bad_line_to_nats(hurt: Wired, who: str, how: str) -> None:
    load = Load(hurt.url, STREAMS, 300, seed=40)
    await load.under_way()
    await survive(hurt, [hurt.nats[await victim(hurt, who)]], how, 1.0, load)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_lines_are_cut_one_by_one_and_heal_in_any_order(hurt: Wired, seed: int) -> None:
    random = Random(seed)  # noqa: S311  # a seed must repeat
    load = Load(hurt.url, STREAMS, TOKENS, seed=50 + seed)
    await load.under_way()
    wires = random.sample(hurt.wires, 5)
    for wire in wires:
        await hurt_wire(wire, random.choice(["cut", "silent", "deaf", "mute"]))
        await asyncio.sleep(random.uniform(0.1, 0.6))
    for wire in random.sample(wires, len(wires)):
        await wire.heal()
        await asyncio.sleep(random.uniform(0.1, 0.6))
    await judge(hurt, load, 60 + seed)
