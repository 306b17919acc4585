"""Every byte of a buffer has one place and one writer, for any number of ranks; ranks that disagree are refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.vllm_engine.geometry import Geometry, run, share
from shared.engine.vllm_engine.notes import Part, Registered
from shared.errors import ConfigError

SIZES = [1, 2, 4, 8]


def engine(heads: list[int], ranks: int, stages: int = 1, slab: int = 8) -> list[Registered]:
    """`heads` has an entry per layer; layers are dealt out to the stages in turn."""
    found = []
    each = -(-len(heads) // stages)
    for stage in range(stages):
        for rank in range(ranks):
            parts = []
            for layer in range(stage * each, min((stage + 1) * each, len(heads))):
                part = share(heads[layer], rank, ranks)
                parts.append(Part(f"layers.{layer}", part.heads, part.first, part.count, slab * (layer + 1)))
            found.append(Registered(stage * ranks + rank, ranks * stages, stage, 10, 16, parts, "bf16"))
    return found


@given(
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=5),
    st.sampled_from(SIZES),
    st.integers(1, 2),
    st.integers(1, 3),
)
def test_every_byte_of_a_buffer_is_written_exactly_once(heads: list[int], ranks: int, stages: int, blocks: int) -> None:
    ends = engine(heads, ranks, min(stages, len(heads)))
    geometry = Geometry(ends)
    offset = 4096
    written = [0] * (blocks * geometry.block_bytes)
    for registered in ends:
        tp = registered.rank % ranks
        for part in registered.parts:
            place = run(part, geometry.before[part.name], offset, blocks)
            assert offset <= place.start
            assert place.start + place.nbytes <= offset + len(written)
            if share(part.heads, tp, ranks).writes:
                for byte in range(place.start - offset, place.start - offset + place.nbytes):
                    written[byte] += 1
    assert set(written) == {1}


@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4), st.sampled_from(SIZES), st.sampled_from(SIZES))
def test_engines_of_any_number_of_ranks_see_the_same_buffer(heads: list[int], some: int, others: int) -> None:
    one, other = Geometry(engine(heads, some)), Geometry(engine(heads, others, stages=min(2, len(heads))))
    assert one.before == other.before
    assert one.block_bytes == other.block_bytes
    assert one.identity == other.identity


def test_what_changes_the_meaning_of_the_bytes_changes_the_identity() -> None:
    base = engine([4, 4], 2)
    identity = Geometry(base).identity
    for change in ({"layout": "fp16"}, {"block_tokens": 32}):
        assert Geometry([msgspec.structs.replace(one, **change) for one in base]).identity != identity
    assert Geometry(engine([4, 4, 4], 2)).identity != identity
    assert Geometry(engine([4, 8], 2)).identity != identity
    assert Geometry(engine([4, 4], 2, slab=16)).identity != identity


def test_heads_of_one_tensor_lie_next_to_each_other_and_tensors_in_the_order_of_the_layers() -> None:
    first, second = engine([2, 2], 2)
    geometry = Geometry([second, first])
    assert geometry.before == {"layers.0": 0, "layers.1": 16}
    assert geometry.block_bytes == 16 + 32
    assert run(first.parts[0], 0, 100, 3) == (100, 24)
    assert run(second.parts[0], 0, 100, 3) == (124, 24)
    assert run(second.parts[1], 16, 100, 3) == (100 + 48 + 48, 48)


def test_fewer_heads_than_ranks_lie_in_several_of_which_the_lowest_writes() -> None:
    shares = [share(2, rank, 4) for rank in range(4)]
    assert [(one.first, one.count, one.writes) for one in shares] == [
        (0, 1, True),
        (0, 1, False),
        (1, 1, True),
        (1, 1, False),
    ]


def test_heads_that_cannot_be_shared_out_are_refused_by_their_numbers() -> None:
    with pytest.raises(ConfigError, match="6 KV heads cannot be shared out over 4"):
        share(6, 0, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": 11}, "blocks differs: 10 and 11"),
        ({"block_tokens": 32}, "block_tokens differs"),
        ({"layout": "fp8"}, "layout differs: bf16 and fp8"),
        ({"world": 3}, "world differs"),
        ({"rank": 0}, r"ranks \[0, 0\] came"),
        ({"parts": []}, "different tensors"),
        ({"parts": [Part("layers.0", 4, 2, 2, 99)]}, "different tensors"),
        ({"parts": [Part("layers.0", 4, 3, 1, 8)]}, r"of the 4 heads of layers.0 the ranks have \[0, 1, 3\]"),
    ],
)
def test_ranks_that_do_not_fit_together_are_refused_by_what_differs(change: dict[str, object], said: str) -> None:
    first, second = engine([4], 2)
    with pytest.raises(ConfigError, match=said):
        Geometry([first, msgspec.structs.replace(second, **change)])


def test_no_rank_no_tensor_and_a_name_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match="none has registered"):
        Geometry([])
    with pytest.raises(ConfigError, match="none has a KV tensor"):
        Geometry([Registered(0, 1, 0, 10, 16, [], "bf16")])
    twice = [Registered(rank, 2, rank, 10, 16, [Part("layers.0", 1, 0, 1, 8)], "bf16") for rank in range(2)]
    with pytest.raises(ConfigError, match=r"both have a KV tensor layers\.0"):
        Geometry(twice)
