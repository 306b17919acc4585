"""Whatever bytes come, they are a message or MalformedMessage; no other exception, no harm."""

import contextlib

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import MalformedMessage
from shared.messages import (
    AnyMessage,
    Done,
    Frame,
    InstanceRecord,
    Pulse,
    Rejected,
    Status,
    ToDecode,
    ToGateway,
    ToInstance,
    ToPrefill,
    decode,
    pack_tokens,
    unpack_tokens,
)
from tests.wire.golden_files import golden
from tests.wire.samples import SAMPLES

DOORS = [ToPrefill, ToDecode, ToGateway, ToInstance, Status, Pulse, Done | Rejected, InstanceRecord, AnyMessage]
"""What receivers expect, each at its door."""
GOLDEN = [data for tag in SAMPLES for data in golden(tag)]
TAGS = [tag for tag in SAMPLES if tag != "instance.record"]

keys = st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


def knock(data: bytes) -> None:
    for door in DOORS:
        with contextlib.suppress(MalformedMessage):
            decode(data, door)


@given(st.binary(max_size=400))
@example(b"")
@example(b"\xc1")
@example(b"\x81\x90\x00")  # a list as a map's key
@example(b"\x81\x80\x00")  # a map as a map's key
@example(b"\xd6\xff\xff\xff\xff\xff")  # a timestamp
@example(b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff")  # a timestamp past what a date can be
@example(b"\xc7\x0c\xff" + b"\xff" * 12)
@example(b"\xc7\x05\xff12345")  # a timestamp of an impossible length
@example(b"\xdd\xff\xff\xff\xff")  # a list of four thousand million
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 100_000)  # very deep
@example(b"\x81\xa1t" * 100_000)
@example(b"\xa2\xc3\x28")  # a string that is not UTF-8
def test_arbitrary_bytes(data: bytes) -> None:
    knock(data)


@settings(max_examples=60)
@given(values)
def test_arbitrary_values(value: object) -> None:
    knock(msgpack.packb(value))


@settings(max_examples=150)
@given(st.sampled_from(TAGS), st.data())
def test_known_tags_with_arbitrary_fields(tag: str, data: st.DataObject) -> None:
    names = sorted({"unknown", *(name for sample in SAMPLES[tag] for name in sample.__struct_fields__)})
    fields = data.draw(st.dictionaries(st.sampled_from(names), values))
    knock(msgpack.packb({**fields, "t": tag}))


@settings(max_examples=300)
@given(st.sampled_from(GOLDEN), st.data())
def test_damaged_messages(original: bytes, data: st.DataObject) -> None:
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    knock(bytes(damaged))


@given(st.sampled_from(GOLDEN), st.integers(0, 400))
def test_truncated_and_prolonged_messages_are_malformed(original: bytes, cut: int) -> None:
    for damaged in (original[: cut % len(original)], original + b"\x00"):
        for door in (AnyMessage, InstanceRecord):
            with pytest.raises(MalformedMessage):
                decode(damaged, door)


def test_a_megabyte_of_noise_is_malformed() -> None:
    noise = b"\xc7\xff\x13" * 350_000
    with pytest.raises(MalformedMessage):
        decode(noise, AnyMessage)


def test_a_frame_with_uneven_columns_is_malformed() -> None:
    frame = {
        "t": "frame",
        "instance": "d",
        "epoch": [1, 1],
        "streams": [1, 2],
        "attempts": [0],
        "indexes": [0],
        "ids": [0],
    }
    with pytest.raises(MalformedMessage, match="columns"):
        decode(msgpack.packb({**frame, "texts": ["x"]}), Frame)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_tokens_come_back_as_they_went(tokens: list[int]) -> None:
    assert unpack_tokens(pack_tokens(tokens)) == tokens


def test_tokens_are_little_endian_uint32() -> None:
    assert pack_tokens([1, 262_143]) == b"\x01\x00\x00\x00\xff\xff\x03\x00"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_bytes_that_are_no_whole_tokens_are_malformed(size: int) -> None:
    with pytest.raises(MalformedMessage):
        unpack_tokens(bytes(size))
