"""The bytes of every message are pinned, so that versions of Baton understand each other."""

from typing import get_args

import msgpack
import pytest

from shared.errors import MalformedMessage
from shared.messages import AnyMessage, Value, decode, encode
from tests.wire.golden_files import FOLDER, golden
from tests.wire.samples import SAMPLES, TYPES

PINNED = [(tag, number) for tag, samples in SAMPLES.items() for number in range(len(samples))]


@pytest.mark.parametrize(("tag", "number"), PINNED)
def test_a_message_has_its_golden_bytes_and_is_read_back_from_them(tag: str, number: int) -> None:
    sample, data = SAMPLES[tag][number], golden(tag)[number]
    assert encode(sample).hex() == data.hex()
    assert decode(data, TYPES[tag]) == sample
    if tag != "instance.record":
        assert decode(data, AnyMessage) == sample


def test_every_message_has_samples_and_golden_bytes_and_nothing_else_has() -> None:
    assert len(TYPES) == len(get_args(AnyMessage)) + 1, "two messages have the same tag"
    assert set(SAMPLES) == set(TYPES) == {path.stem for path in FOLDER.iterdir()}
    for tag, samples in SAMPLES.items():
        assert {type(sample) for sample in samples} == {TYPES[tag]}
        assert len(golden(tag)) == len(samples)


@pytest.mark.parametrize("tag", list(SAMPLES))
def test_the_samples_of_a_message_set_every_field(tag: str) -> None:
    """So that no field's bytes go unpinned."""
    seen: set[str] = set()
    for data in golden(tag):
        seen |= set(msgpack.unpackb(data, strict_map_key=False))
    assert seen - {"t"} == set(TYPES[tag].__struct_fields__)


@pytest.mark.parametrize(("tag", "number"), PINNED)
def test_fields_of_a_later_version_are_ignored(tag: str, number: int) -> None:
    plain = msgpack.unpackb(golden(tag)[number], strict_map_key=False)
    later = msgpack.packb({**plain, "from_the_future": {"nested": [1, None, b"x"]}})
    assert decode(later, TYPES[tag]) == SAMPLES[tag][number]


@pytest.mark.parametrize("tag", [tag for tag in SAMPLES if tag != "instance.record"])
def test_a_message_is_not_taken_for_another(tag: str) -> None:
    data = golden(tag)[0]
    for other, kind in TYPES.items():
        if other not in (tag, "instance.record"):
            with pytest.raises(MalformedMessage):
                decode(data, kind)


def test_a_message_of_an_unknown_tag_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode(msgpack.packb({"t": "from.the.future", "request_id": "r", "attempt": 0}), AnyMessage)


def test_a_message_names_its_size_and_what_was_expected_but_not_its_content() -> None:
    with pytest.raises(MalformedMessage, match="expected offer, got 7 bytes") as caught:
        decode(b"\xa6secret", Value, "offer")
    assert caught.value.size == 7
    assert "secret" not in str(caught.value)
