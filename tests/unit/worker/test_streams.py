"""The running batch as frames: every gateway hears of each of its streams what the tokens say, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.decode.streams import Stream, Streams
from shared.engine import Alternatives, Sampled, Step
from shared.messages import Finish, Finished, Frame, Sampling, Stopping, Value, decode
from shared.subjects import Subjects
from shared.text import ByteTokenizer, TextStream
from shared.worker.frames import FrameSender
from shared.worker.metrics import WorkerMetrics
from shared.worker.progress import Progress
from tests.fakes import a_request

TOKENIZER = ByteTokenizer()
TEXTS = st.text("ab\né日👩", max_size=12).map(lambda text: list(text.encode()))
NOISE = st.lists(st.integers(0, 257), max_size=4)


class _Bus:
    connected, closed = True, False

    def __init__(self) -> None:
        self.frames: list[tuple[str, Frame]] = []

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        assert isinstance(message, bytes)
        self.frames.append((subject, decode(message, Frame)))


class _Engine:
    """Steps all sequences side by side, each to the end of its tokens; tells alternatives of every third token."""

    def __init__(self, tokens: dict[str, list[int]]) -> None:
        self._tokens = tokens

    async def steps(self) -> AsyncIterator[Step]:
        for n in range(max(map(len, self._tokens.values()))):
            step = Step()
            for key, tokens in self._tokens.items():
                if n < len(tokens):
                    finish = Finish.LENGTH if n == len(tokens) - 1 else None
                    top = Alternatives(-0.5, [(tokens[n], -0.5)]) if n % 3 == 2 else None
                    step.sampled.append(Sampled(key, tokens[n], finish, None, top))
            yield step


def naive(tokens: list[int], stop: list[str]) -> tuple[str, Finish]:
    """What all the tokens say, up to the first stop string."""
    text = TOKENIZER.decode(tokens)
    for end in range(len(text) + 1):
        complete = [one for one in stop if text[:end].endswith(one)]
        if complete:
            return text[: end - len(max(complete, key=len))], Finish.STOP
    return text, Finish.LENGTH


async def served(batch: list[list[int]], stop: list[str]) -> tuple[_Bus, list[Stream]]:
    """Let a batch run to its end; of two gateways, every other stream."""
    bus = _Bus()
    sender = FrameSender(bus, Subjects(), "d1", lambda: (1, 1), patience_s=1.0)  # type: ignore[arg-type]
    engine = _Engine({f"r{n}#0": tokens for n, tokens in enumerate(batch)})
    streams = Streams(engine, sender, TOKENIZER, WorkerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    joined = []
    for n in range(len(batch)):
        stopping, sampling = Stopping(max_tokens=99, stop=stop), Sampling(logprobs=1 if n % 3 else None)
        request = a_request(f"r{n}", stream=n, gateway=f"gateway-{n % 2}", stopping=stopping, sampling=sampling)
        stream = Stream(f"r{n}#0", request, TextStream(TOKENIZER, stopping, []), 0, Progress(request))
        streams.join(stream)
        joined.append(stream)
    await streams.pump()
    assert not len(streams)
    return bus, joined


@given(
    st.lists(st.tuples(TEXTS, NOISE).map(lambda parts: parts[0] + parts[1] or [97]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["ab", "b", "\n\n", "é日", "aab", "\ufffd"]), max_size=2, unique=True),
)
def test_every_stream_says_what_all_its_tokens_say_up_to_a_stop_string(batch: list[list[int]], stop: list[str]) -> None:
    bus, joined = asyncio.run(served(batch, stop))
    for n, (tokens, stream) in enumerate(zip(batch, joined, strict=True)):
        frames = [frame for subject, frame in bus.frames if subject.endswith(f"gateway-{n % 2}")]
        places = [(frame, k) for frame in frames for k, number in enumerate(frame.streams) if number == n]
        text, reason = naive(tokens, stop)
        assert "".join(frame.texts[k] for frame, k in places) == text
        assert [frame.indexes[k] for frame, k in places] == list(range(len(places)))
        assert [frame.ids[k] for frame, k in places] == tokens[: len(places)]
        (ending,) = [one for frame in frames for one in frame.ended if one.stream == n]
        assert isinstance(ending, Finished)
        assert (ending.reason, ending.completion_tokens) == (reason, len(places))
        assert (list(stream.progress.ids), "".join(stream.progress.texts)) == (tokens[: len(places)], text)
        told = [one.token.token_id for frame, k in places for one in frame.logprobs if one.entry == k]
        assert told == (tokens[: len(places)][2::3] if n % 3 else [])
        assert stream.progress.ended == ending
        assert stream.over.result() is None
