"""Messages are read in one pass; the slow way, MessagePack into objects and these into types, agrees with it."""

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import MalformedMessage
from shared.messages import Cancel, decode
from tests.wire.samples import SAMPLES
from tests.wire.test_hostile_bytes import DOORS, GOLDEN, TAGS, values

odd = st.sampled_from([1.0, 0, -1, True, "1", b"1", [1.0, 2], ["a"], [b"a"], [[1, 1]], 2**63, 2**64 - 1, "", None])


def slowly(data: bytes, door: object) -> str | None:
    """What it is, in words; None where it is nothing of the kind."""
    try:
        plain = msgpack.unpackb(data, strict_map_key=False)
        return repr(msgspec.convert(plain, type=door, builtin_types=(bytes,)))
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def quickly(data: bytes, door: object) -> str | None:
    try:
        return repr(decode(data, door))  # type: ignore[type-var]
    except MalformedMessage:
        return None


def agree(data: bytes) -> None:
    for door in DOORS:
        assert quickly(data, door) == slowly(data, door), door


@settings(max_examples=200)
@given(st.sampled_from(GOLDEN), st.data())
def test_both_ways_agree_where_one_field_holds_something_else(original: bytes, data: st.DataObject) -> None:
    fields = msgpack.unpackb(original, strict_map_key=False)
    name = data.draw(st.sampled_from(sorted(fields)))
    agree(msgpack.packb({**fields, name: data.draw(odd | values)}))


@settings(max_examples=200)
@given(st.sampled_from(TAGS), st.data())
def test_both_ways_agree_on_arbitrary_fields(tag: str, data: st.DataObject) -> None:
    names = sorted({"unknown", *(name for sample in SAMPLES[tag] for name in sample.__struct_fields__)})
    agree(msgpack.packb({**data.draw(st.dictionaries(st.sampled_from(names), odd | values)), "t": tag}))


@settings(max_examples=200)
@given(st.sampled_from(GOLDEN), st.data())
def test_damage_that_leaves_a_message_leaves_the_same_one(original: bytes, data: st.DataObject) -> None:
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for door in DOORS:
        message = slowly(bytes(damaged), door)
        assert message is None or quickly(bytes(damaged), door) == message, door


def test_a_text_that_is_no_utf_8_is_refused_but_a_field_of_such_a_name_is_one_more_that_is_not_known() -> None:
    cancel = b"\x83\xa1t\xa6cancel\xaarequest_id\xa1%b\xa7attempt\x01"
    assert decode(cancel % b"a", Cancel) == Cancel("a", 1)
    with pytest.raises(MalformedMessage):
        decode(cancel % b"\xff", Cancel)
    more = b"\x84" + (cancel % b"a")[1:] + b"\xa2\xff\xfe\x01"
    assert decode(more, Cancel) == Cancel("a", 1)
