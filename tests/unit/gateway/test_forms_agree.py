"""A streamed answer and a whole one say the same, whatever stands between the workers and the client."""

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.answers.counted import Count
from services.gateway.answers.maps import NatsAnswer
from services.gateway.answers.response_events import ResponseEvents
from services.gateway.answers.response_whole import WholeResponse
from services.gateway.answers.responses import ResponseShape
from services.gateway.answers.shapes import ChatShape, Usage
from services.gateway.answers.streamed import SseAnswer
from services.gateway.answers.whole import WholeAnswer
from services.gateway.api.responses import ResponsesRequest
from services.gateway.content.folding import Folder
from services.gateway.content.rules import Rules
from services.gateway.content.stages import RuleStage
from services.gateway.relay.record import Sink
from services.gateway.tools.parsers import open_parser
from services.gateway.tools.sink import ParsedChoice
from shared.messages import Finish, Logprobs, TokenLogprob
from tests.unit.gateway.tools.reading import FORMATS

HERMES = FORMATS["hermes"]
CALL = HERMES.calls([("f", '{"city": "Paris"}')])
PARTS = st.lists(st.sampled_from([CALL, CALL + "\n", "words", " and ", "\n", "bomb", "bo", "<tool"]), max_size=6)
ENDINGS = st.sampled_from([Finish.STOP, Finish.LENGTH])
BOTH = re.compile(
    r"\}\s*</tool_call>.*\S", re.DOTALL
)  # whose token is the call's or the message's, as it happens to be told
USAGE = Usage(1, 1)
Token = tuple[str, str]  # its own text, and what is shown with it: less, or more, than that


@st.composite
def generated(draw: st.DrawFn) -> list[Token]:
    """A text as tokens, some of whose texts come late."""
    text = "".join(draw(PARTS))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=15)))
    tokens = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True) if b > a]
    late, made = "", list[Token]()
    for place, token in enumerate(tokens):
        shown = late + token
        late = shown if place + 1 < len(tokens) and draw(st.booleans()) else ""
        made.append((token, "" if late else shown))
    return made


def logprobs(text: str) -> Logprobs:
    return Logprobs(0, TokenLogprob(1, -0.5, text, text.encode()), [])


def told(sink: Any, tokens: list[Token], reason: Finish, *, eager: bool, rich: bool, moderated: bool) -> None:
    """Send a text through all that may stand before an answer's own sink."""
    first: Sink = ParsedChoice(sink, open_parser(HERMES, frozenset({"f"}), eager=eager, single=False))
    if moderated:
        rules = Rules({"bomb": "w"}, [], folder=Folder(), whole=False, window=8)
        first = RuleStage(SimpleNamespace(rules=rules), first, lambda _: None)
    for index, (token, shown) in enumerate(tokens):
        if rich:
            first.token(index, shown, logprobs(token))
        elif shown:
            first.text(index, shown)
    first.finish(reason)


class Wire:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def write(self, data: bytes) -> None:
        lines = data.decode().split("\n")
        self.events += [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    def get_write_buffer_size(self) -> int:
        return 0


WAYS = {"rich": st.booleans(), "moderated": st.booleans()}


@given(tokens=generated(), reason=ENDINGS, **WAYS)
def test_4_a_chat(tokens: list[Token], reason: Finish, **ways: bool) -> None:
    wire, streamed, whole = (
        Wire(),
        SseAnswer(ChatShape("c", 1, "chat"), 1 << 20, 30.0),
        WholeAnswer(ChatShape("c", 1, "chat")),
    )
    streamed.stream.attach(wire, chunked=True)
    told(streamed.sink(0, "c"), tokens, reason, eager=True, **ways)
    told(whole.sink(0, "c"), tokens, reason, eager=False, **ways)
    (choice,) = json.loads(whole.body(USAGE))["choices"]
    chunks = [event["choices"][0] for event in wire.events]
    calls: list[list[str]] = []
    for delta in (call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])):
        if "id" in delta:
            calls.append([delta["function"]["name"], ""])
        calls[delta["index"]][1] += delta["function"]["arguments"]
    message = choice["message"]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == (message["content"] or "")
    assert calls == [list(call["function"].values()) for call in message.get("tool_calls", [])]
    entries = [entry for chunk in chunks if chunk["logprobs"] for entry in chunk["logprobs"]["content"]]
    assert entries == ((choice["logprobs"] or {}).get("content") or [])
    assert [chunk["finish_reason"] for chunk in chunks][-1] == choice["finish_reason"]
    assert all(chunk["finish_reason"] is None for chunk in chunks[:-1])


@given(tokens=generated(), reason=ENDINGS, **WAYS)
def test_4_a_response(tokens: list[Token], reason: Finish, **ways: bool) -> None:
    shape = ResponseShape("resp_1", 1, "chat", ResponsesRequest(input="x"))
    wire, streamed, whole = Wire(), ResponseEvents(shape, 1 << 20, 30.0), WholeResponse(shape)
    streamed.stream.attach(wire, chunked=True)
    told(streamed.sink(0, "r"), tokens, reason, eager=True, **ways)
    streamed.end(USAGE)
    told(whole.sink(0, "r"), tokens, reason, eager=False, **ways)
    last, body = wire.events[-1]["response"], json.loads(whole.body(USAGE))
    whose = not any(BOTH.search(shown) for _, shown in tokens)
    for item in (*last["output"], *body["output"]):
        item.pop("call_id", None)
        for part in item.get("content", ()) if not whose else ():
            del part["logprobs"]
    assert last == body
    assert [event["sequence_number"] for event in wire.events] == list(range(2, 2 + len(wire.events)))
    texts = [event["delta"] for event in wire.events if event["type"] == "response.output_text.delta"]
    said = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    assert "".join(texts) == "".join(part["text"] for part in said)
    entries = [one for event in wire.events if event["type"].endswith("text.delta") for one in event["logprobs"]]
    assert not whose or entries == [one for part in said for one in part["logprobs"]]


def test_words_that_come_in_one_piece_with_the_end_of_a_call_do_not_cut_it() -> None:
    shape, wire = ResponseShape("resp_1", 1, "chat", ResponsesRequest(input="x")), Wire()
    answer = ResponseEvents(shape, 1 << 20, 30.0)
    answer.stream.attach(wire, chunked=True)
    pieces = [CALL[:45], CALL[45:] + "\nand then " + CALL[:45], CALL[45:]]
    tokens = [(text, text) for text in pieces]
    told(answer.sink(0, "r"), tokens, Finish.STOP, eager=True, rich=False, moderated=False)
    answer.end(USAGE)
    first, message, second = wire.events[-1]["response"]["output"]
    assert message["content"][0]["text"] == "\nand then"
    for item in (first, second):
        assert (item["type"], item["name"], item["arguments"]) == ("function_call", "f", '{"city": "Paris"}')


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_of_calls_are_none_of_the_messages(stream: bool) -> None:  # noqa: FBT001
    shape = ResponseShape("resp_1", 1, "chat", ResponsesRequest(input="x"))
    wire = Wire()
    answer: Any = ResponseEvents(shape, 1 << 20, 30.0) if stream else WholeResponse(shape)
    tokens = [(text, text) for text in ("Let", " me.", "\n", CALL[:20], CALL[20:], "\n", CALL)]
    told(answer.sink(0, "r"), tokens, Finish.LENGTH, eager=stream, rich=True, moderated=False)
    if stream:
        answer.stream.attach(wire, chunked=True)
        answer.end(USAGE)
        output = cast("Any", wire.events[-1])["response"]["output"]
    else:
        output = json.loads(answer.body(USAGE))["output"]
    assert [item["status"] for item in output] == ["completed", "completed", "incomplete"]
    assert [one["token"] for one in output[0]["content"][0]["logprobs"]] == ["Let", " me."]


@pytest.mark.parametrize(("before", "shown"), [([CALL], [CALL]), (["words", " <tool"], ["words", " <tool"])])
def test_19_logprobs_of_tokens_that_a_stop_swallowed_are_swallowed_beside_functions_too(
    before: list[str], shown: list[str]
) -> None:
    answer = WholeAnswer(ChatShape("c", 1, "chat"))
    tokens = [*((text, text) for text in before), ("ST", ""), ("OP", "")]
    told(answer.sink(0, "c"), tokens, Finish.STOP, eager=False, rich=True, moderated=False)
    (choice,) = json.loads(answer.body(USAGE))["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == shown


def test_19_over_nats_each_choice_of_a_whole_answer_has_its_logprobs() -> None:
    sent: list[dict[str, Any]] = []
    answer = NatsAnswer("c", sent.append, streamed=False)
    for choice, word in enumerate(("one", "two")):
        told(answer.sink(choice, "c"), [(word, word)], Finish.STOP, eager=False, rich=True, moderated=False)
    answer.end(USAGE)
    (last,) = sent
    assert [[entry["token"] for entry in entries] for entries in last["logprobs_of"]] == [["one"], ["two"]]
    assert last["logprobs"] == last["logprobs_of"][0]
    assert last["texts"] == ["one", "two"]


def test_over_nats_a_token_that_ends_a_call_and_goes_on_in_words_is_one_token() -> None:
    sent: list[dict[str, Any]] = []
    answer = NatsAnswer("c", sent.append, streamed=True, count=Count())
    tokens = [(text, text) for text in (CALL[:45], CALL[45:] + "\nand", " then")]
    told(answer.sink(0, "c"), tokens, Finish.STOP, eager=True, rich=False, moderated=False)
    assert [(piece["i"], piece["text"], piece["usage"]["completion_tokens"]) for piece in sent] == [
        (0, "", 1), (1, "", 2), (1, "\nand", 2), (2, " then", 3)
    ]  # fmt: skip
