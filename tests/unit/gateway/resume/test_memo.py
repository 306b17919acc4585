"""The memo of a stream: what is asked but for its words, whole or not at all."""

import msgspec
import pytest

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest
from services.gateway.resume.memo import read_memo, write_memo
from shared.errors import UnknownStream
from shared.messages import MAX_MEMO_BYTES

WORDS = "my secret words " * 50
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def chat(**more: object) -> ChatRequest:
    fields = {"model": "chat", "messages": [{"role": "user", "content": WORDS}], "stream": True, **more}
    return msgspec.convert(fields, ChatRequest)


def test_everything_but_the_words_is_read_back() -> None:
    memo = read_memo(write_memo(chat(n=2, tools=[TOOL], seed=5), 1_700, 2, guarded=False))
    asked = memo.read()
    assert isinstance(asked, ChatRequest)
    assert (memo.created, memo.choices, asked.n, asked.seed, asked.stream) == (1_700, 2, 2, 5, True)
    assert asked.tools == chat(tools=[TOOL]).tools
    assert WORDS not in msgspec.json.encode(asked).decode()


def test_a_prompt_travels_only_where_it_is_shown_and_their_number_always() -> None:
    plain = CompletionRequest(model="chat", prompt=["a", "b"], stream=True)
    for asked, expected in ((plain, ["", ""]), (msgspec.structs.replace(plain, echo=True), ["a", "b"])):
        read = read_memo(write_memo(asked, 0, 2, guarded=False)).read()
        assert isinstance(read, CompletionRequest)
        assert read.prompts() == expected


def test_what_cannot_be_resumed_has_none() -> None:
    response = ResponsesRequest(model="chat", input="x", stream=True)
    assert write_memo(chat(stream=False), 0, 1, guarded=False) == b""
    assert write_memo(response, 0, 1, guarded=True) == b""
    assert write_memo(response, 0, 1, guarded=False)
    names = [
        {"type": "function", "function": {"name": f"f{n:x}", "description": str(hash((n, 7))) * 40}} for n in range(120)
    ]
    large = write_memo(chat(tools=names), 0, 1, guarded=False)
    assert len(large) <= MAX_MEMO_BYTES, "packed, or left out"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x95\xa4chat", msgspec.msgpack.encode(["other", 0, 1, False, b"{}"]),
                                  msgspec.msgpack.encode(["chat", 0, 1, True, b"not packed"]),
                                  msgspec.msgpack.encode(["chat", 0, 1, False, b"{"])])  # fmt: skip
def test_bytes_of_another_version_are_no_stream_of_ours(data: bytes) -> None:
    with pytest.raises(UnknownStream):
        read_memo(data).read()
