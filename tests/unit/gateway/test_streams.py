"""Events on the wire: framing, ids, bounds."""

import json

import pytest

from services.gateway.answers.calling import CallingAnswer
from services.gateway.answers.counted import CountedAnswer
from services.gateway.answers.positions import Marks
from services.gateway.answers.shapes import ChatShape, CompletionShape, Shape, Usage
from services.gateway.answers.sse import KEEP_ALIVE_S
from services.gateway.answers.streamed import SseAnswer
from services.gateway.prompts.chats import Calling
from services.gateway.tools.formats import FORMATS
from shared.errors import EngineFailed
from shared.messages import Finish, Logprobs, TokenLogprob

TEXTS = ["Hel", "lo", ' "quoted"\n', "\u2028 \U0001f469\u200d\U0001f680 \\", "\x00\x1f"]


class Wire:
    """A transport that keeps everything, or pretends that nobody reads."""

    def __init__(self, unread: int = 0) -> None:
        self.data = b""
        self.unread = unread
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self.data += data

    def get_write_buffer_size(self) -> int:
        return self.unread

    def body(self) -> bytes:
        """Take the chunked framing off, strictly."""
        out, rest = b"", self.data
        while rest:
            size, rest = rest.split(b"\r\n", 1)
            assert size == b"%x" % int(size, 16)
            out, end, rest = out + rest[: int(size, 16)], rest[int(size, 16) :][:2], rest[int(size, 16) + 2 :]
            assert end == b"\r\n"
        return out


def events(body: bytes) -> list[tuple[str, str]]:
    """(id, data) of each event; comments are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if lines:
            found.append((lines.get("id", ""), lines["data"]))
    return found


def an_answer(wire: Wire, shape: Shape | None = None, *, chunked: bool = True, max_unsent: int = 1000) -> SseAnswer:
    answer = SseAnswer(shape or ChatShape("chatcmpl-1", 5, "chat"), max_unsent, 30.0)
    answer.stream.attach(wire, chunked=chunked)
    return answer


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("shape", [ChatShape("chatcmpl-1", 5, "chat", True), CompletionShape("cmpl-1", 5, "chat")])
def test_deltas_are_the_text_and_every_event_is_valid_json(shape: Shape, chunked: bool) -> None:  # noqa: FBT001
    wire = Wire()
    answer = an_answer(wire, shape, chunked=chunked)
    sink = answer.sink(0, "r1")
    for index, text in enumerate(TEXTS):
        sink.text(index, text)
    sink.finish(Finish.LENGTH)
    answer.end(Usage(3, 5))
    got = events(wire.body() if chunked else wire.data)
    assert got[-1] == ("", "[DONE]")
    assert [identity for identity, _ in got[:6]] == [*(f"r1:{index}" for index in range(5)), "r1:end"]
    choices = [json.loads(data)["choices"][0] for _, data in got[:6]]
    assert "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in choices) == "".join(TEXTS)
    assert [c["finish_reason"] for c in choices] == [None] * 5 + ["length"]
    if isinstance(shape, ChatShape):
        assert json.loads(got[6][1])["usage"]["total_tokens"] == 8
        assert all(json.loads(data)["usage"] is None for _, data in got[:6])
        assert choices[-1]["delta"] == {}


def test_text_from_before_the_headers_follows_them_in_order() -> None:
    wire = Wire()
    answer = SseAnswer(ChatShape("chatcmpl-1", 5, "chat"), 1000, 30.0)
    sink = answer.sink(0, "r1")
    sink.text(0, "early")
    assert wire.data == b""
    answer.stream.attach(wire, chunked=True)
    sink.text(1, "late")
    assert [identity for identity, _ in events(wire.body())] == ["r1:0", "r1:1"]


def test_the_opening_names_the_role_of_each_choice_once() -> None:
    answer = SseAnswer(ChatShape("chatcmpl-1", 5, "chat"), 1000, 30.0)
    for choice in range(2):
        answer.sink(choice, f"r1-{choice}")
    got = [json.loads(data)["choices"][0] for _, data in events(answer.opening())]
    assert [(one["index"], one["delta"]) for one in got] == [(k, {"role": "assistant", "content": ""}) for k in (0, 1)]


def test_a_reader_that_leaves_too_much_unsent_is_cut_off_once_and_gets_nothing_more() -> None:
    wire = Wire(unread=1001)
    answer = an_answer(wire)
    told: list[str] = []
    answer.stream.on_cut = lambda: told.append("cut")
    sink = answer.sink(0, "r1")
    sink.text(0, "a")
    before = wire.data
    sink.text(1, "b")
    answer.fail(EngineFailed("gone"))
    assert told == ["cut"]
    assert answer.stream.gone
    assert wire.data == before


def test_a_reader_that_was_cut_off_for_being_slow_hears_why_after_what_it_got() -> None:
    wire = Wire()
    answer = an_answer(wire)
    told: list[str] = []
    answer.stream.on_cut = lambda: told.append("cut")
    sink = answer.sink(0, "r1")
    sink.text(0, "a")
    wire.unread = 1001
    sink.text(1, "b")
    sink.text(2, "c")
    answer.stream.last_words()
    answer.fail(EngineFailed("gone"))
    assert told == ["cut"]
    assert not answer.stream.gone
    texts = [json.loads(data) for _, data in events(wire.body())]
    assert [one["choices"][0]["delta"]["content"] for one in texts[:-1]] == ["a", "b"]
    assert texts[-1]["error"]["message"] == "gone"


def test_a_reader_that_takes_nothing_at_all_hears_nothing_more() -> None:
    wire = Wire(unread=10)
    answer = an_answer(wire)
    for _ in range(31):
        answer.stream.sweep(1.0)
        wire.unread += 1
    before = wire.data
    answer.stream.last_words()
    answer.fail(EngineFailed("gone"))
    assert answer.stream.gone
    assert wire.data == before


def test_a_reader_that_takes_nothing_for_long_is_cut_off() -> None:
    wire = Wire(unread=10)
    answer = an_answer(wire)
    told: list[str] = []
    answer.stream.on_cut = lambda: told.append("cut")
    for _ in range(31):
        answer.stream.sweep(1.0)
        wire.unread += 1
    assert told == ["cut"]


def test_a_reader_that_takes_a_little_stays() -> None:
    wire = Wire(unread=900)
    answer = an_answer(wire)
    for step in range(100):
        wire.unread = 900 - step
        answer.stream.sweep(1.0)
    assert not answer.stream.gone


def test_9_silence_is_broken_by_a_comment() -> None:
    wire = Wire()
    answer = an_answer(wire)
    sink = answer.sink(0, "r1")
    answer.stream.sweep(KEEP_ALIVE_S - 1)
    sink.text(0, "a")
    answer.stream.sweep(KEEP_ALIVE_S - 1)
    assert b": ping" not in wire.data
    answer.stream.sweep(1.0)
    assert wire.body().endswith(b": ping\n\n")
    assert len(events(wire.body())) == 1


def test_a_connection_that_closes_under_a_write_hurts_nobody() -> None:
    wire = Wire()
    answer = an_answer(wire)
    sink = answer.sink(0, "r1")
    wire.closed = True
    sink.text(0, "a")
    sink.finish(Finish.STOP)
    assert answer.stream.gone


def logprob(text: str) -> Logprobs:
    return Logprobs(0, TokenLogprob(1, float("-inf"), text, text.encode()), [TokenLogprob(2, -0.5, "x", b"x")])


@pytest.mark.parametrize(("reason", "shown"), [(Finish.STOP, ["a", "b", "c"]), (Finish.LENGTH, ["a", "b", "c", "d"])])
def test_logprobs_wait_for_their_text_and_are_swallowed_with_a_stop(reason: Finish, shown: list[str]) -> None:
    wire = Wire()
    sink = an_answer(wire).sink(0, "r1")
    for index, (token, text) in enumerate([("a", "a"), ("b", ""), ("c", "bc"), ("d", "")]):
        sink.token(index, text, logprob(token))
    sink.finish(reason)
    choices = [json.loads(data)["choices"][0] for _, data in events(wire.body())]
    entries = [entry for one in choices if one["logprobs"] for entry in one["logprobs"]["content"]]
    assert [entry["token"] for entry in entries] == shown
    assert entries[0] == {
        "token": "a",
        "logprob": -9999.0,
        "bytes": [97],
        "top_logprobs": [{"token": "x", "logprob": -0.5, "bytes": [120]}],
    }


def test_words_that_might_have_begun_a_call_are_no_token_of_their_own_in_the_usage() -> None:
    wire = Wire()
    answer = CountedAnswer(ChatShape("chatcmpl-1", 5, "chat"), 1000, 30.0, Marks(exact=True))
    answer.stream.attach(wire, chunked=True)
    answer.expect(7)
    calling = Calling(FORMATS["hermes"], frozenset({"f"}), single=False)
    sink = CallingAnswer(answer, calling, streamed=True).sink(0, "chatcmpl-1")
    for index, text in enumerate(["a", "b", "c <tool"]):
        sink.text(index, text)
    sink.finish(Finish.LENGTH)
    sent = [json.loads(data) for _, data in events(wire.body())]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in sent) == "abc <tool"
    assert [one["usage"]["completion_tokens"] for one in sent] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize("at_once", [True, False])
def test_19_offsets_of_a_completions_tokens_count_characters_however_they_are_cut(at_once: bool) -> None:  # noqa: FBT001
    around = CompletionShape("cmpl-1", 5, "chat").logprobs()
    raw = "a\U0001f680é!".encode()
    made: list[int] = []
    for place in range(len(raw)):
        piece = raw[place : place + 1]
        around.add(Logprobs(place, TokenLogprob(1, -0.5, piece.decode(errors="replace"), piece), []))
        if not at_once:
            made += (around.take() or {})["text_offset"]
    if at_once:
        made = (around.take() or {})["text_offset"]
    assert made == [0, 1, 1, 1, 1, 2, 2, 3]
