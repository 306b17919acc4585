"""What the tests of functions and forms ask, and what the model says."""

from typing import Any

from openai import AsyncOpenAI

from tests.contract.gateway.house import House
from tests.contract.gateway.wire import HELLO

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time", "strict": False}}
BEFORE = ["Let me", " look.", "\n"]
ONE = ["<tool_", 'call>\n{"name": "get', '_weather", "argu', 'ments": {"ci', 'ty": "Par', 'is"}', "}\n</tool", "_call>"]
OTHER = ['\n<tool_call>{"name": "get_time", ', '"arguments": {}}', "</tool_call>"]
CALLS = [("get_weather", {"city": "Paris"}), ("get_time", {})]


def says(house: House, *words: str) -> None:
    house.fleet.words = lambda _: list(words)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": HELLO, "tools": [WEATHER, TIME], **more}


async def streamed(client: AsyncOpenAI, **more: Any) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(**asked(**more), stream=True)]


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": fields}}
