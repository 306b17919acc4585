"""The geometry of a KV buffer, its fingerprint and its checksum."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kv.layout import CHECKSUM_BYTES, KvLayout, checksum, chunk_ranges

GEMMA = KvLayout("gemma-3-270m", "bfloat16", layers=18, kv_heads=1, head_dim=256, block_tokens=16)

layouts = st.builds(
    KvLayout,
    model=st.text(max_size=8),
    dtype=st.sampled_from(["float32", "bfloat16", "int8"]),
    layers=st.integers(1, 8),
    kv_heads=st.integers(1, 4),
    head_dim=st.integers(1, 16),
    block_tokens=st.integers(1, 32),
)


def test_a_token_takes_keys_and_values_of_every_layer() -> None:
    assert GEMMA.token_bytes == 18 * 2 * 1 * 256 * 2
    assert GEMMA.block_bytes == 16 * GEMMA.token_bytes
    assert GEMMA.shape(3) == (3, 18, 2, 16, 1, 256)


def test_a_buffer_holds_whole_blocks() -> None:
    assert [GEMMA.blocks_for(tokens) for tokens in (0, 1, 16, 17)] == [0, 1, 1, 2]
    assert GEMMA.buffer_bytes(17) == 2 * GEMMA.block_bytes
    assert GEMMA.block_range(1) == (GEMMA.block_bytes, 2 * GEMMA.block_bytes)


@pytest.mark.parametrize(
    "other",
    [
        replace(GEMMA, model="gemma-3-270m-it"),
        replace(GEMMA, dtype="float16"),
        replace(GEMMA, layers=17),
        replace(GEMMA, kv_heads=2),
        replace(GEMMA, head_dim=128),
        replace(GEMMA, block_tokens=32),
        replace(GEMMA, kv_heads=16, block_tokens=1),
    ],
)
def test_any_difference_shows_in_the_fingerprint(other: KvLayout) -> None:
    assert other.fingerprint != GEMMA.fingerprint
    assert replace(other, **{name: getattr(GEMMA, name) for name in GEMMA.__slots__}).fingerprint == GEMMA.fingerprint


def test_the_fingerprint_is_pinned_so_that_a_changed_layout_needs_a_new_version() -> None:
    assert GEMMA.fingerprint == "ae923dc70a1a6772a6f262db81039ac0"


def test_a_model_name_cannot_imitate_the_fields_after_it() -> None:
    forged = replace(GEMMA, model="gemma-3-270m\n8 bfloat16")
    assert forged.fingerprint != GEMMA.fingerprint


@pytest.mark.parametrize("wrong", [{"dtype": "complex64"}, {"layers": 0}, {"block_tokens": -1}])
def test_a_geometry_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="KV"):
        replace(GEMMA, **wrong)  # type: ignore[arg-type]


@given(layouts, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_the_ranges_of_successive_chunks_of_a_prompt_cover_the_buffer_once(layout: KvLayout, chunks: list[int]) -> None:
    total, before, end = sum(chunks), 0, 0
    for tokens in chunks:
        start, stop = layout.completed_range(before, before + tokens, total)
        assert start == end <= stop
        before, end = before + tokens, stop
    assert end == layout.buffer_bytes(total)


@given(st.integers(0, 10_000), st.integers(1, 999))
def test_chunks_cover_the_bytes_once_and_in_order(nbytes: int, chunk: int) -> None:
    ranges = list(chunk_ranges(nbytes, chunk))
    assert [byte for start, stop in ranges for byte in (start, stop)][1:-1:2] == [start for start, _ in ranges][1:]
    assert sum(stop - start for start, stop in ranges) == nbytes
    assert all(0 < stop - start <= chunk for start, stop in ranges)


def test_the_checksum_sees_one_bit_anywhere() -> None:
    data = bytearray(3 << 20)
    whole = checksum(memoryview(data))
    assert len(whole) == CHECKSUM_BYTES
    for position in (0, 1 << 20, (3 << 20) - 1):
        data[position] ^= 0x10
        assert checksum(memoryview(data)) != whole
        data[position] ^= 0x10
    assert checksum(memoryview(data)) == whole


def test_a_checksum_stops_between_chunks_when_nobody_wants_it() -> None:
    def stop() -> None:
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        checksum(memoryview(bytes(10)), stop)
