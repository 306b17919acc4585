"""What a gateway does with a fleet of several groups and scenarios, and what it tells the monitor of its requests."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, NotFoundError

from services.gateway import traffic
from shared.bus import Delivery
from shared.config import TenantSettings
from shared.config.scenario import WhenSettings
from shared.errors import Code
from shared.messages import Group, GroupTraffic, Member, Traffic, decode
from tests.contract.gateway.house import EPOCH, WORDS, Fleet, House, failed, open_house
from tests.servers import NatsServer, RedisServer

TOKENS = len(WORDS)


def group(name: str, prefill: str, decode: str, **fields: Any) -> Group:
    return Group(name, [Member(prefill, EPOCH)], [Member(decode, EPOCH)], **fields)


GROUPS = [group("g1", "p1", "d1"), group("g2", "p2", "d2", canary=50, revision=1)]
CODE = [group("c1", "code-p", "code-d")]


class Told:
    """What the gateway said of its traffic."""

    def __init__(self) -> None:
        self.messages: list[Traffic] = []

    def take(self, delivery: Delivery) -> None:
        message = decode(delivery.data, Traffic)
        if message.scenario == "chat":
            self.messages.append(message)

    def last(self) -> Traffic:
        return self.messages[-1] if self.messages else Traffic("none", EPOCH, "chat", 1)

    def sum(self, what: str) -> int:
        return sum(getattr(group, what) for group in self.last().groups)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    nats, redis = nats_server.settings(prefix="parted"), redis_server.settings()
    chat = {"aliases": ("any", "mine"), "local_prefill_tokens": 100, "when": WhenSettings(prompt_matches="^(?i)chat")}
    others = {"code": {"aliases": ("any",), "when": WhenSettings(max_tokens_below=5)}, "idle": {"aliases": ("rest",)}}
    tenants = {"anonymous": TenantSettings(scenarios=("chat", "code"))}
    async with AsyncExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(traffic, "TELL_S", 0.05)
        house = await stack.enter_async_context(
            open_house(nats, redis, instance="parted-1", scenario=chat, groups=GROUPS, others=others, tenant=tenants)
        )
        code = Fleet(house.fleet.bus, house.subjects, "code", CODE)
        await code.open()
        stack.push_async_callback(code.close)
        await house.until(lambda: house.gateway._view.exists("code", role_of("code-p", code)), "the second scenario")
        house.code = code  # type: ignore[attr-defined]
        yield house


def role_of(name: str, fleet: Fleet) -> Any:
    return fleet.members[name][1]


@pytest_asyncio.fixture(loop_scope="module")
async def house(one_house: House) -> AsyncIterator[House]:
    yield one_house
    one_house.fleet.calm()
    one_house.code.calm()  # type: ignore[attr-defined]
    await one_house.empty()


@pytest_asyncio.fixture(loop_scope="module")
async def told(house: House) -> AsyncIterator[Told]:
    made = Told()
    subscription = await house.fleet.bus.subscribe(house.subjects.traffic("*"), made.take)
    yield made
    await subscription.stop()


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: House) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as made:
        yield made


async def ask(client: AsyncOpenAI, model: str = "chat", prompt: str = "p", **more: Any) -> Any:
    return await client.completions.create(model=model, prompt=prompt, **more)


# ---- groups


async def test_a_canary_gets_its_share_and_a_lot_decides_it(house: House, client: AsyncOpenAI) -> None:
    made = await asyncio.gather(*(ask(client) for _ in range(40)))
    assert len(made) == 40
    parted = house.gateway._dispatcher._routes.parted("chat")
    assert parted is not None
    offered = dict(reversed(offer) for offer in house.fleet.offers)
    assert len(offered) == 40
    assert all(instance == ("p2" if parted.drawn(request) else "p1") for request, instance in offered.items())
    assert {"p1", "p2"} == set(offered.values())


async def test_a_short_prompt_goes_to_a_decode_when_the_prefills_are_full(house: House, client: AsyncOpenAI) -> None:
    house.fleet.full.update(("p1", "p2"))
    standing = house.gateway._view.candidates.standing
    chat = house.fleet.members
    await house.until(
        lambda: all(
            (found := standing("chat", chat[name][1], name)) is not None and found.tier for name in ("p1", "p2")
        ),
        "full prefills",
    )
    answer = await ask(client)
    assert answer.choices[0].text == "".join(WORDS)
    assert house.fleet.offers[0][0] in ("d1", "d2")
    metrics = house.gateway._instance.telemetry.exposition().decode()
    assert 'baton_gateway_routes_total{route="local",scenario="chat"} 1.0' in metrics
    assert not house.gateway._dispatcher._book.local


# ---- names


async def test_rules_choose_among_those_that_share_a_name(house: House, client: AsyncOpenAI) -> None:
    assert (await ask(client, "any", "Chat with me")).model == "chat"
    assert (await ask(client, "any", max_tokens=3)).model == "code"
    assert [name for name, _ in house.code.offers] == ["code-p"]  # type: ignore[attr-defined]
    chat = await client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "chat"}], max_tokens=5
    )
    assert chat.model == "chat"
    assert (await client.responses.create(model="any", input="chat")).model == "chat"


async def test_a_header_wins_over_a_shared_name(client: AsyncOpenAI) -> None:
    assert (await ask(client, "any", extra_headers={"x-baton-scenario": "code"})).model == "code"


async def test_a_request_that_nobody_of_a_name_takes_is_a_404_that_says_why(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        await ask(client, "any", "hello")
    error: Any = caught.value.body
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "of 'chat' prompt_matches does not; of 'code' max_tokens_below is 5" in error["message"]


async def test_models_list_the_shared_names(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in await client.models.list()]
    assert set(listed) >= {"chat", "code", "any", "mine"}
    assert (await client.models.retrieve("mine")).id == "mine"


# ---- traffic


async def test_traffic_tells_of_each_request_in_the_group_that_served_it(
    house: House, client: AsyncOpenAI, told: Told
) -> None:
    await house.until(lambda: len(told.messages) > 0, "a first message")
    first = told.last()
    before = {what: told.sum(what) for what in ("finished", "tokens", "e2e_us", "prefill_us")}
    house.fleet.may_speak.clear()
    asking = [asyncio.ensure_future(ask(client)) for _ in range(6)]
    records = house.gateway._relay.records
    await house.until(lambda: len([one for one in records if one.held_at]) == 6, "six that are held")
    house.fleet.may_speak.set()
    await asyncio.gather(*asking)
    await house.until(lambda: told.sum("finished") == before["finished"] + 6, "all of them")
    last = told.last()
    assert last.arrived - first.arrived == 6
    assert last.prompt_tokens > first.prompt_tokens
    assert (last.refused, last.waiting, last.open) == (first.refused, 0, 0)
    assert told.sum("tokens") - before["tokens"] == 6 * TOKENS
    assert told.sum("e2e_us") - before["e2e_us"] >= told.sum("prefill_us") - before["prefill_us"] > 0
    assert sum(sum(group.ttft) for group in last.groups) == told.sum("finished") == last.arrived - last.refused
    assert {group.group for group in last.groups} <= {"g1", "g2"}
    assert [one.number for one in told.messages] == sorted({one.number for one in told.messages})


async def test_a_failed_attempt_counts_against_the_group_of_its_worker(
    house: House, client: AsyncOpenAI, told: Told
) -> None:
    await house.until(lambda: len(told.messages) > 0, "a first message")
    before = told.sum("failed")
    house.fleet.fails_at = {(0, 3): failed(Code.ENGINE_FAILED, retryable=True)}
    assert (await ask(client)).choices[0].text == "".join(WORDS)
    await house.until(lambda: told.sum("failed") == before + 1, "the failure")
    place = {name: group.name for name, (group, _) in house.fleet.members.items()}[house.fleet.offers[0][0]]
    assert next(group for group in told.last().groups if group.group == place).failed > 0


async def test_the_last_word_of_a_gateway_has_everything(nats_server: NatsServer, redis_server: RedisServer) -> None:
    told = Told()
    async with open_house(nats_server.settings(prefix="leaving"), redis_server.settings(), instance="leaving-1") as one:
        await one.fleet.bus.subscribe(one.subjects.traffic("chat"), told.take)
        async with AsyncOpenAI(base_url=f"{one.url}/v1", api_key="any", max_retries=0, timeout=10) as client:
            await ask(client)
        one.stopping.ask("it leaves")
        await one.life
        await one.until(lambda: told.sum("finished") == 1, "the last message")
    assert isinstance(told.last().groups[0], GroupTraffic)
