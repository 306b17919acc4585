"""What tests of the Responses API ask, and what they look at."""

from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent

from shared.messages import unpack_tokens
from tests.contract.gateway.house import House

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "How it is outside",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
    "strict": False,
}


async def events_of(client: AsyncOpenAI, **asked: Any) -> list[ResponseStreamEvent]:
    return [event async for event in await client.responses.create(model="chat", stream=True, **asked)]


def prompt_of(house: House) -> str:
    return bytes(token for token in unpack_tokens(house.fleet.requests[-1].tokens) if token < 256).decode()
