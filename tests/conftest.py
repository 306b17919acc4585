"""Fixtures for every test: real servers, and the check that a test leaves no task and no thread behind."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from shared.config import Nats, RedisSettings
from tests.servers import NatsServer, RedisServer

# how long an example takes says something about the machine, not about the code
settings.register_profile("baton", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("baton")

GRACE_S = 3.0
"""For what a library ends in the background after it was closed."""


@pytest.fixture(autouse=True)
def _no_thread_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    if _shares_engines(request):
        return
    deadline = time.monotonic() + GRACE_S
    while left := [thread.name for thread in threading.enumerate() if thread not in before and thread.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads are left behind: {left}")
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _no_task_is_left(request: pytest.FixtureRequest, _no_thread_is_left: None) -> None:
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)) and not _shares_engines(request):
        request.getfixturevalue("_task_watch")  # first of the async fixtures, so it is torn down last


def _shares_engines(request: pytest.FixtureRequest) -> bool:
    """Engines of vLLM, with threads and tasks of their own, outlive the test that starts them."""
    return request.node.get_closest_marker("vllm") is not None


@pytest.fixture
async def _task_watch() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    own = {asyncio.current_task()}
    deadline = time.monotonic() + GRACE_S
    while left := asyncio.all_tasks() - before - own:
        if time.monotonic() > deadline:
            pytest.fail(f"tasks are left behind: {sorted(str(task) for task in left)}")
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One nats-server for the whole session; tests that hurt it take `own_nats_server`."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One valkey-server for the whole session; tests that hurt it take `own_redis_server`."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server that the test may kill, stop and start again."""
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A valkey-server that the test may kill, stop and start again; its data survives a restart."""
    server = RedisServer(tmp_path, durable=True)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def nats_settings(nats_server: NatsServer, request: pytest.FixtureRequest) -> Nats:
    """Settings of the session's NATS under a prefix of the test's own, so that tests do not hear each other."""
    return nats_server.settings(prefix=f"t{abs(hash(request.node.nodeid))}")


@pytest.fixture
async def redis_settings(redis_server: RedisServer) -> RedisSettings:
    """Settings of the session's Redis, emptied."""
    settings = redis_server.settings()
    client = Redis.from_url(settings.url)
    await client.flushall()
    await client.aclose()
    return settings


@pytest.fixture
async def redis_client(redis_settings: RedisSettings) -> AsyncIterator[Redis]:
    """A client of the session's Redis, emptied."""
    client = Redis.from_url(redis_settings.url)
    yield client
    await client.aclose()
