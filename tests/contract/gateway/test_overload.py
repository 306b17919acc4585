"""More is asked than the workers take: who is served, who is refused, and what the refused are told."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio

from shared.errors import Code
from shared.messages import Rejected
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import HELLO, parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
FULL = Rejected("", 0, "p1", Code.OVERLOADED, "all slots are taken")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    nats, redis = nats_server.settings(prefix="overload"), redis_server.settings()
    async with open_house(nats, redis, max_streams=32, max_waiting=2, absent_wait_s=0.3) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(one_house: House) -> AsyncIterator[House]:
    yield one_house
    one_house.fleet.calm()
    await one_house.empty()


def ask(house: House, **fields: object) -> "asyncio.Task[bytes]":
    body = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 2} | fields).encode()
    return asyncio.ensure_future(raw(house, post("/v1/chat/completions", body)))


def refusal(answer: bytes) -> tuple[int, str, str]:
    """Status, code and reason; a refusal also says when to come back."""
    status, headers, body = parts(answer)
    assert 1 <= int(headers["retry-after"]) < 60
    return status, json.loads(body)["error"]["code"], headers["x-baton-reason"]


async def waiting(house: House, number: int) -> None:
    await house.until(lambda: house.gateway._dispatcher.waiting("chat") == number, f"{number} wait")


async def test_24_a_full_wait_refuses_the_newcomer_of_the_only_tenant(house: House) -> None:
    house.fleet.rejects = FULL
    held = [ask(house, seed=number) for number in range(2)]
    await waiting(house, 2)
    assert refusal(await ask(house)) == (429, "server_overloaded", "queue_full")
    house.fleet.rejects = None
    assert [parts(answer)[0] for answer in await asyncio.gather(*held)] == [200, 200]


async def test_24_a_full_wait_sheds_the_lowest_priority_first(house: House) -> None:
    house.fleet.rejects = FULL
    low = ask(house, priority=5)
    await waiting(house, 1)
    others = [ask(house, priority=0) for _ in range(2)]
    assert refusal(await low) == (429, "server_overloaded", "queue_displaced")
    house.fleet.rejects = None
    assert [parts(answer)[0] for answer in await asyncio.gather(*others)] == [200, 200]


async def test_a_client_cannot_raise_its_own_priority(house: House) -> None:
    house.fleet.rejects = FULL
    first = [ask(house) for _ in range(2)]
    await waiting(house, 2)
    assert refusal(await ask(house, priority=-100)) == (429, "server_overloaded", "queue_full")
    house.fleet.rejects = None
    assert [parts(answer)[0] for answer in await asyncio.gather(*first)] == [200, 200]


async def test_24_a_request_that_waited_as_long_as_it_may_is_told_that_it_was_the_wait(house: House) -> None:
    house.fleet.rejects = FULL
    assert refusal(await ask(house, timeout=0.4)) == (429, "server_overloaded", "queue_wait")


async def test_24_without_any_worker_a_request_waits_a_moment_and_is_then_told_so(house: House) -> None:
    house.fleet.present = False
    await house.until(lambda: bool(house.gateway.why_not_ready()), "not ready")
    assert refusal(await ask(house)) == (503, "no_capacity", "no_capacity")
    house.fleet.present = True
    await house.until(lambda: not house.gateway.why_not_ready(), "ready again")


async def test_24_a_worker_that_comes_back_in_time_gets_what_waited_for_it(house: House) -> None:
    house.fleet.present = False
    await house.until(lambda: bool(house.gateway.why_not_ready()), "not ready")
    rules = house.gateway._dispatcher._scarcity._rules
    object.__setattr__(rules, "grace_s", 30.0)  # as configured by default, or more
    try:
        held = ask(house)
        await waiting(house, 1)
        house.fleet.present = True
        assert parts(await held)[0] == 200
    finally:
        object.__setattr__(rules, "grace_s", 0.3)
