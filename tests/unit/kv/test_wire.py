"""The records of the push protocol."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import KvRefused, MalformedMessage
from shared.kv.wire import (
    ANSWER_BYTES,
    OPENING_BYTES,
    Answer,
    Kind,
    Opening,
    VersionDiffers,
    answer_for,
    expect_go,
    opening_for,
    pack_answer,
    parse_answer,
    push_key,
    refusal,
    request_mark,
)
from shared.messages import KvGrant

OPENING = Opening(Kind.PUSH, ticket=bytes(range(16)), request=b"r" * 16, length=1 << 40, offset=4096)
REFUSALS = [answer for answer in Answer if answer not in {Answer.GO, Answer.DONE}]


def test_the_bytes_of_the_records_are_pinned() -> None:
    assert OPENING.pack().hex() == (
        "42744b5600010002000102030405060708090a0b0c0d0e0f72727272727272727272727272727272"
        "00000100000000000000000000001000"
    )
    assert pack_answer(Answer.CHECKSUM).hex() == "42744b5600010012"
    assert (OPENING_BYTES, ANSWER_BYTES) == (56, 8)


def test_records_come_back_as_they_went() -> None:
    assert Opening.parse(OPENING.pack()) == OPENING
    assert [parse_answer(pack_answer(answer)) for answer in Answer] == list(Answer)


@given(
    st.binary(min_size=OPENING_BYTES, max_size=OPENING_BYTES), st.binary(min_size=ANSWER_BYTES, max_size=ANSWER_BYTES)
)
def test_any_bytes_are_a_record_or_malformed(opening: bytes, answer: bytes) -> None:
    for parse, data in ((Opening.parse, opening), (parse_answer, answer)):
        with suppress(MalformedMessage):  # and nothing else
            parse(data)


@pytest.mark.parametrize("bit", range(64))
def test_one_flipped_bit_in_the_first_eight_bytes_is_no_opening_of_the_same_kind(bit: int) -> None:
    data = bytearray(OPENING.pack())
    data[bit // 8] ^= 1 << bit % 8
    with suppress(MalformedMessage):
        assert Opening.parse(bytes(data)).kind is not OPENING.kind


def test_another_version_is_told_apart_from_nonsense() -> None:
    data = bytearray(OPENING.pack())
    data[5] += 1
    with pytest.raises(VersionDiffers, match="version 2"):
        Opening.parse(bytes(data))
    answer = bytearray(pack_answer(Answer.DONE))
    answer[5] += 1
    assert parse_answer(bytes(answer)) is Answer.VERSION


@pytest.mark.parametrize("answer", REFUSALS)
def test_every_refusal_is_an_error_that_finds_its_way_back_to_its_answer(answer: Answer) -> None:
    error = refusal(answer, "because")
    assert isinstance(error, KvRefused)
    assert str(error).endswith(": because")
    assert error.retryable
    assert answer_for(error) is answer
    with pytest.raises(KvRefused) as raised:
        expect_go(answer)
    assert raised.value.reason == error.reason


def test_malformed_records_have_their_answers() -> None:
    assert answer_for(MalformedMessage("x", 1)) is Answer.MALFORMED
    assert answer_for(VersionDiffers("x", 1)) is Answer.VERSION
    assert answer_for(KvRefused("of a kind unknown here", "")) is Answer.MALFORMED


def test_an_opening_names_the_attempt_its_grant_is_for() -> None:
    grant = KvGrant("req", 3, "d1", (1, 1), b"t" * 16, [], 0)
    opening = opening_for(grant, 100, 8)
    assert opening.request == request_mark(push_key("req", 3)) != request_mark(push_key("req", 4))
    assert (opening.ticket, opening.length, opening.offset) == (b"t" * 16, 100, 8)
