"""What the sampler is told of a request: plain values that survive vLLM's wire, and nothing where nothing is needed."""

from typing import Any

import msgspec
import pytest

from shared.engine import Sequence
from shared.engine.vllm_engine.draws import KEY, read_wanted, stop_token_ids, unsaid, wanted
from shared.messages import Constraint, Sampling, Stopping
from shared.text.tokenizer import ByteTokenizer

EOS = frozenset({5, 4})
WORD = Constraint("regex", "[a-z]+")
VOCABULARY = 200


def sequence(stopping: Stopping | None = None, generated: int = 0, **sampling: Any) -> Sequence:
    tokens = [10, 11, 12, *range(generated)]
    return Sequence("k", tokens, 3, Sampling(**sampling), stopping or Stopping(max_tokens=9))


def test_the_likeliest_token_needs_no_telling() -> None:
    assert wanted(sequence(temperature=0.0), EOS) is None
    assert wanted(sequence(temperature=1e-6, top_p=0.3, top_k=2, seed=9, logprobs=3), EOS) is None
    assert wanted(sequence(Stopping(max_tokens=9, min_tokens=4), generated=4, temperature=0.0), EOS) is None
    assert wanted(sequence(Stopping(max_tokens=9, min_tokens=4, ignore_eos=True), temperature=0.0), EOS) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 1e-5},
        {"temperature": 0.0, "repetition_penalty": 1.1},
        {"temperature": 0.0, "presence_penalty": -0.1},
        {"temperature": 0.0, "frequency_penalty": 0.1},
        {"temperature": 0.0, "logit_bias": {7: 1.0}},
        {"temperature": 0.0, "constraint": WORD},
        {"temperature": 0.0, "stopping": Stopping(max_tokens=9, min_tokens=1)},
    ],
)
def test_all_else_comes_back_as_it_was_asked(asked: dict[str, Any]) -> None:
    given = sequence(**asked)
    told = wanted(given, EOS)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode({KEY: told, "kv_transfer_params": {}}))
    found = read_wanted(sent, VOCABULARY)
    assert found is not None
    assert found.sampling == given.sampling
    assert (found.key, found.prompt_tokens, found.min_tokens) == ("k", 3, given.stopping.min_tokens)
    assert found.ends == [4, 5]
    assert found.stop == stop_token_ids(given, EOS)[0] == 4


def test_logprobs_are_not_the_samplers_business() -> None:
    found = read_wanted({KEY: wanted(sequence(logprobs=5), EOS)}, VOCABULARY)
    assert found is not None
    assert found.sampling.logprobs is None


def test_a_request_that_is_told_nothing_is_read_as_such() -> None:
    assert read_wanted(None, VOCABULARY) is None
    assert read_wanted({"kv_transfer_params": {}}, VOCABULARY) is None


@pytest.mark.parametrize(
    "told", [{}, {"key": "k", "sampling": {"temperature": "hot"}, "prompt_tokens": 1, "ends": []}, 3]
)
def test_what_is_no_request_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected|missing"):
        read_wanted({KEY: told}, VOCABULARY)


def test_a_bias_beyond_the_vocabulary_is_refused_and_ends_beyond_it_are_left_out() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        read_wanted({KEY: wanted(sequence(logit_bias={VOCABULARY: 1.0}), EOS)}, VOCABULARY)
    found = read_wanted({KEY: wanted(sequence(), frozenset({VOCABULARY, 9}))}, VOCABULARY)
    assert found is not None
    assert (found.ends, found.stop) == ([9], 9)
    beyond = read_wanted({KEY: wanted(sequence(), frozenset({VOCABULARY}))}, VOCABULARY)
    assert beyond is not None
    assert (beyond.ends, beyond.stop) == ([], None)


def test_vllm_stops_at_the_clients_ends_and_a_text_in_a_language_always_has_one() -> None:
    deaf = Stopping(max_tokens=9, ignore_eos=True)
    assert stop_token_ids(sequence(Stopping(max_tokens=9, stop_token_ids=[8, 2])), EOS) == [2, 4, 5, 8]
    assert stop_token_ids(sequence(deaf), EOS, 199) == []
    assert stop_token_ids(sequence(deaf, constraint=WORD), EOS, 199) == [199]
    assert stop_token_ids(sequence(deaf, constraint=WORD), EOS) == [4]
    assert stop_token_ids(sequence(constraint=WORD), frozenset()) == [0]
    told = read_wanted({KEY: wanted(sequence(deaf, constraint=WORD), EOS, 199)}, VOCABULARY)
    assert told is not None
    assert (told.ends, told.stop) == ([], 199)


class Pieces:
    """A tokenizer of these tokens; those that begin with `<` are special."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def piece(self, token_id: int) -> tuple[str, bytes]:
        return "", self._pieces[token_id]

    def shown(self, token_id: int) -> bytes:
        raw = self._pieces[token_id]
        return b"" if raw.startswith(b"<") else raw


@pytest.mark.parametrize(
    ("pieces", "best"),
    [
        ((b"a", b"", b"<end>", b"\xff"), 1),
        ((b"a", b"<end>", b"\xff", b"bc"), 1),
        ((b"a", b"\xff", b"b", b"bc"), 1),
        ((b"a", b"bc", b"d"), 1),
        ((b"a", b"b"), 1),
    ],
)
def test_the_token_that_texts_miss_least_has_no_bytes_or_bytes_that_no_text_has(
    pieces: tuple[bytes, ...], best: int
) -> None:
    assert unsaid(Pieces(*pieces), len(pieces)) == best  # type: ignore[arg-type]


def test_where_tokens_are_bytes_it_is_one_that_no_utf8_has() -> None:
    assert unsaid(ByteTokenizer(), 256) == 255
    assert unsaid(ByteTokenizer(), 199) == 0xC1
    assert unsaid(ByteTokenizer(), 300) >= 258
