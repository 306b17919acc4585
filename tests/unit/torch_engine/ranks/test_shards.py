"""Which part of a model each rank has."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.torch_engine.architecture import Architecture, LayerKind, Rope
from shared.engine.torch_engine.ranks.shards import Cut, device_names, shard
from shared.errors import ConfigError

MODEL = Architecture(
    family="llama", vocabulary=199, hidden=48, intermediate=80, heads=8, kv_heads=4, head_dim=6,
    layers=(LayerKind(Rope(1e4)),), context=64, eps=1e-6, activation="silu", attention_scale=1.0, tied=False,
)  # fmt: skip


def test_one_rank_has_all() -> None:
    alone = shard(MODEL)
    assert alone.local == MODEL
    assert (alone.vocabulary, alone.writes, alone.vocabulary_rows) == (Cut.all(199), True, 199)


@given(st.integers(1, 500), st.integers(1, 16))
def test_equal_parts_cover_an_axis_once(whole: int, parts: int) -> None:
    cuts = [Cut.equal(whole, number, parts) for number in range(parts)]
    assert [place for cut in cuts for place in range(cut.start, cut.stop)] == list(range(whole))
    assert max(cut.size for cut in cuts) == cuts[0].size == -(-whole // parts)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_each_rank_has_the_kv_heads_that_its_heads_look_at_and_each_is_written_once(world: int, kv_heads: int) -> None:
    model = replace(MODEL, kv_heads=kv_heads)
    shards = [shard(model, rank, world) for rank in range(world)]
    for one in shards:
        looked_at = {head // (model.heads // kv_heads) for head in range(one.heads.start, one.heads.stop)}
        assert looked_at == set(range(one.kv_heads.start, one.kv_heads.stop))
        assert one.local.heads % one.local.kv_heads == 0
    written = [head for one in shards if one.writes for head in range(one.kv_heads.start, one.kv_heads.stop)]
    assert written == list(range(kv_heads))


def test_a_model_that_cannot_be_split_is_refused_with_every_reason() -> None:
    with pytest.raises(ConfigError) as refused:
        shard(replace(MODEL, heads=9, kv_heads=3, intermediate=81), 0, 2)
    assert [fault.partition(": ")[2] for fault in refused.value.faults] == [
        "2 ranks cannot share 9 attention heads equally",
        "2 ranks cannot share 81 numbers between a layer's gates equally",
        "2 ranks cannot share 3 KV heads, nor have one each",
    ]


@pytest.mark.parametrize(
    ("first", "world", "names"),
    [
        ("cpu", 3, ["cpu"] * 3),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda:2", 3, ["cuda:2", "cuda:3", "cuda:4"]),
        ("npu", 1, ["npu"]),
        ("cuda:x", 2, ["cuda:x"] * 2),
    ],
)
def test_ranks_take_devices_side_by_side(first: str, world: int, names: list[str]) -> None:
    assert device_names(first, world) == names
