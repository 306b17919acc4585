"""`baton up` as the terminal sees it: progress on stderr, the ready line on stdout, Ctrl-C to stop, twice to kill.

Owns signals and words. What is started is the plan's business, how it lives the cluster's.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import TextIO

from services.local.cluster import LocalCluster
from services.local.plan import Plan, Wishes
from services.local.state import Cluster, StateDirectory, directory
from shared.errors import BatonError

FILES = 65_536
"""Open files wanted: each stream of a client is one."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(wishes: Wishes) -> int:
    """Run a local cluster until told to stop. Returns the exit status; raises BatonError when it cannot run."""
    if not sys.platform.startswith("linux"):
        raise BatonError("`baton up` needs Linux, whose kernel ends the children with it; use compose.yaml elsewhere.")
    plan = Plan(wishes, os.environ)
    _raise_file_limit()
    with StateDirectory(directory(os.environ)) as state:
        return asyncio.run(_up(plan, state))


async def _up(plan: Plan, state: StateDirectory) -> int:
    cluster = LocalCluster(plan, state, say)
    life = asyncio.ensure_future(_live(cluster, state))
    told = _on_signals(life.cancel, cluster.kill)
    try:
        await life
    except asyncio.CancelledError:
        if not told():
            raise
        say("stopping; press Ctrl-C again to kill")
    finally:
        for name in await cluster.stop():
            say(f"{name} did not stop in time and was killed")
    say("stopped")
    return 0


async def _live(cluster: LocalCluster, state: StateDirectory) -> None:
    """Start, greet, and go on until cancelled or until it is pointless."""
    began = time.monotonic()
    for log in state.logs.glob("*.log"):
        log.unlink()
    cluster.check_ports()
    await cluster.import_models()
    address = await cluster.start()
    state.publish(address)
    _greet(address, state, next(iter(cluster.plan.config.scenarios)), time.monotonic() - began)
    await cluster.broken


def _on_signals(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], bool]:
    """Call `first` at the first signal and `second` at each further one; the result says whether one came."""
    count = 0

    def heard() -> None:
        nonlocal count
        count += 1
        (first if count == 1 else second)()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, heard)
    return lambda: count > 0


def _greet(address: Cluster, state: StateDirectory, scenario: str, seconds: float) -> None:
    body = f'{{"model":"{scenario}","stream":true,"messages":[{{"role":"user","content":"Why is the sky blue?"}}]}}'
    say(f"started in {seconds:.1f} s; dashboard {address.dashboard}, logs in {state.logs}")
    say(f"baton ready {address.url}", sys.stdout)
    say(f"curl -N {address.url}/chat/completions -H 'content-type: application/json' -d '{body}'", sys.stdout)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; a terminal that is gone stops nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=stream or sys.stderr, flush=True)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
