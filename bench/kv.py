"""The KV hand-off between two processes: how fast a buffer crosses, against the least that any way across must cost.

Run it by `python -m bench kv`, or with all others by `make bench`. Over TCP by one connection and, where the machine
has cores for more, by as many as `kv.tcp_connections` then means, against as many bare sockets. Sender and receiver are
two processes on this machine. The baselines are measured between the pushes, round by round, so that all see the same
load, and of each the best round counts, because what else the machine does only ever adds: over TCP, a bare `sendall`
into `recv_into` without a checksum, to that same process; for shared memory, a copy between two mappings of one
process, with the same checksum over it and without. Mooncake is measured where its package is installed. 256 MiB show
the rate, 4 MiB (about 200 tokens of a 270M model) the latency. The first push into untouched staging pays for the birth
of its pages and has a row of its own. Where there is a GPU, `kv_device` adds its rows. `loop delay` is how late the
receiver's event loop wakes (median) while 256 MiB come in, against how late it wakes when nothing happens.
"""

import asyncio
import os
import time
from collections import defaultdict
from dataclasses import replace

from bench.kv_far import Far, settings
from bench.table import Row
from shared.kv.arena import Arena, Range
from shared.kv.layout import CHUNK_BYTES, Checksum, chunk_ranges
from shared.kv.sender import Sender

LARGE, SMALL = 256 << 20, 4 << 20
LARGE_ROUNDS, SMALL_ROUNDS = 12, 60

Times = dict[str, list[float]]


def rows() -> list[Row]:
    """Run it."""
    return [*asyncio.run(_rows()), *_between_devices()]


def _between_devices() -> list[Row]:
    try:
        from bench import kv_device  # noqa: PLC0415  torch need not be there
    except ModuleNotFoundError:
        return []
    return kv_device.rows()


async def _rows() -> list[Row]:
    arena, copy_arena = Arena(LARGE), Arena(LARGE)
    sender, single = Sender(arena, settings()), Sender(arena, replace(settings(), tcp_connections=1))
    staging, copy = arena.reserve(LARGE), copy_arena.reserve(LARGE)
    for start, stop in chunk_ranges(LARGE):
        staging.view[start:stop] = os.urandom(CHUNK_BYTES)
    with Far(LARGE) as far:
        cold = await _push(sender, staging, far, "tcp")
        await _round((sender, single), staging, copy, far)  # warms all that is measured
        idle_ms = far.loop_delay_ms(idle_s=0.5)
        large: Times = defaultdict(list)
        for _ in range(LARGE_ROUNDS):
            _add(large, await _round((sender, single), staging, copy, far))
        busy_ms = far.loop_delay_ms()
        staging.release()
        staging, small = arena.reserve(SMALL), defaultdict(list)
        for _ in range(SMALL_ROUNDS):
            _add(small, await _round((sender, single), staging, copy, far))
        await sender.close()
        await single.close()
    for one in (staging, copy, arena, copy_arena):
        one.release() if isinstance(one, Range) else one.close()
    return _table(cold, large, small, busy_ms, idle_ms)


async def _round(senders: tuple[Sender, Sender], staging: Range, copy: Range, far: Far) -> dict[str, float]:
    nbytes, (sender, single) = staging.nbytes, senders
    mooncake = {} if settings().mooncake == "none" else {"mooncake": await _push(sender, staging, far, "mooncake")}
    return mooncake | {
        "raw": far.raw_send(staging.view),
        "tcp": await _push(single, staging, far, "tcp"),
        "raws": far.raw_send(staging.view, far.connections),
        "tcps": await _push(sender, staging, far, "tcp"),
        "shm": await _push(sender, staging, far, "shm"),
        "memcpy": _copy(staging.view, copy.view[:nbytes], checked=False),
        "checked": _copy(staging.view, copy.view[:nbytes], checked=True),
    }


async def _push(sender: Sender, staging: Range, far: Far, transport: str) -> float:
    grant = far.grant(staging.nbytes, transport)
    start = time.perf_counter()
    used = await sender.push(staging, grant)
    seconds = time.perf_counter() - start
    if used != transport:
        raise RuntimeError(f"pushed by {used} instead of {transport}")
    return seconds


def _copy(source: memoryview, target: memoryview, *, checked: bool) -> float:
    start = time.perf_counter()
    digest = Checksum()
    for low, high in chunk_ranges(len(source)):
        target[low:high] = source[low:high]
        if checked:
            digest.update(target[low:high])
    return time.perf_counter() - start


def _add(times: Times, measured: dict[str, float]) -> None:
    for name, seconds in measured.items():
        times[name].append(seconds)


def _table(cold: float, large: Times, small: Times, busy_ms: float, idle_ms: float) -> list[Row]:
    rate = {name: LARGE / min(seconds) / 1e9 for name, seconds in large.items()}
    delay = {name: min(seconds) * 1e3 for name, seconds in small.items()}
    by_mooncake = (
        []
        if "mooncake" not in rate
        else [
            Row("kv push mooncake (tcp) 256 MiB", rate["mooncake"], "GB/s", "raw loopback socket", rate["raw"]),
            Row("kv push mooncake (tcp) 4 MiB", delay["mooncake"], "ms", "raw loopback socket", delay["raw"]),
        ]
    )
    number = Far.connections
    over_several = Row(
        f"kv push tcp 256 MiB, connections: {number}", rate["tcps"], "GB/s", f"raw sockets: {number}", rate["raws"]
    )
    return [
        Row("kv push tcp 256 MiB", rate["tcp"], "GB/s", "raw loopback socket", rate["raw"]),
        *([over_several] if number > 1 else []),
        Row("kv push shm 256 MiB", rate["shm"], "GB/s", "memcpy + checksum", rate["checked"]),
        Row("kv push shm 256 MiB", rate["shm"], "GB/s", "memcpy", rate["memcpy"]),
        Row("kv push tcp 4 MiB", delay["tcp"], "ms", "raw loopback socket", delay["raw"]),
        Row("kv push shm 4 MiB", delay["shm"], "ms", "memcpy + checksum", delay["checked"]),
        Row("kv push tcp, untouched staging", LARGE / cold / 1e9, "GB/s", "touched", rate["tcp"]),
        Row("kv receive, loop delay", busy_ms, "ms", "idle loop", idle_ms),
        *by_mooncake,
    ]
