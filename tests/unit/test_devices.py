"""Devices of a machine: how they are written, how many a worker needs, and that no two workers have the same one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.devices import PLENTY, DevicePool
from shared.config import GroupSettings, ScenarioSettings, load
from shared.config.devices import Devices, device_faults, devices_needed, of_any_worker, read_devices
from shared.errors import ConfigError

NODE = read_devices(["npu:0-7"])
TP2 = {"tensor_parallel_size": 2}


@pytest.mark.parametrize(
    ("words", "kind", "ids"),
    [
        ([], "", ""),
        (["npu:0-3"], "npu", "0 1 2 3"),
        (["npu:4", "5", "6-7", "npu:1"], "npu", "4 5 6 7 1"),
        (["cuda:GPU-8f2c-11", "MIG-aa"], "cuda", "GPU-8f2c-11 MIG-aa"),
    ],
)
def test_devices_are_written_one_by_one_or_as_ranges(words: list[str], kind: str, ids: str) -> None:
    assert read_devices(words) == Devices(kind, tuple(ids.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0-3"], "write npu:0-3 or cuda:0-3"),
        (["gpu:0"], "no kind that is known: npu, cuda"),
        (["npu:0", "cuda:1"], "of another kind than npu"),
        (["npu:0-2", "2"], "names a device twice"),
        (["npu:3-1"], "no device and no range"),
        (["npu:0-5000"], "no device and no range"),
        (["npu:"], "no device and no range"),
        (["npu:0,1"], "no device and no range"),
    ],
)
def test_what_is_no_device_is_refused_with_what_would_do(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_devices(words)


def test_the_environment_may_list_them_with_commas() -> None:
    assert load(None, {"BATON_INSTANCE__DEVICES": "npu:0,1,4-5"}).instance.devices == ("npu:0", "1", "4-5")
    with pytest.raises(ConfigError, match=r"instance\.devices: 'gpu:0' is of no kind"):
        load(None, {"BATON_INSTANCE__DEVICES": "gpu:0"})


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        (ScenarioSettings("m"), 0),
        (ScenarioSettings("m", "sim", engine_options=TP2), 0),
        (ScenarioSettings("m", "torch", engine_options={"device": "npu"}), 1),
        (ScenarioSettings("m", "torch", engine_options={"device": "cuda:1"}), 1),
        (ScenarioSettings("m", "torch", engine_options={"device": "cuda:1", "tensor_parallel": 4}), 4),
        (ScenarioSettings("m", "torch", engine_options={"device": "cuda", **TP2}), 1),
        (ScenarioSettings("m", "torch", engine_options={"tensor_parallel": 4}), 0),
        (ScenarioSettings("m", "vllm"), 1),
        (ScenarioSettings("m", "vllm", engine_options={**TP2, "pipeline_parallel_size": 3}), 6),
        (ScenarioSettings("m", "vllm", engine_options={"tensor_parallel_size": "many"}), 1),
        (ScenarioSettings("m", "vllm", devices_per_worker=3, engine_options=TP2), 3),
    ],
)
def test_a_worker_needs_as_many_as_its_engine_splits_the_model_over(settings: ScenarioSettings, number: int) -> None:
    assert devices_needed(settings) == number


def test_a_standby_needs_as_many_as_the_widest_of_the_groups_that_it_may_join() -> None:
    groups = {"wide": GroupSettings(engine_options={"tensor_parallel_size": 4}), "own": GroupSettings()}
    assert of_any_worker(ScenarioSettings("m", "vllm", engine_options=TP2, group=groups)) == 4
    groups = {"wide": GroupSettings(devices_per_worker=8)}
    assert of_any_worker(ScenarioSettings("m", "vllm", engine_options=TP2, group=groups)) == 8


def test_fewer_devices_than_the_engine_splits_the_model_over_are_refused() -> None:
    few = ScenarioSettings("m", "vllm", devices_per_worker=1, engine_options=TP2)
    assert device_faults(["npu:0-7"], {"chat": few}) == [
        "scenario.chat.devices_per_worker is 1, but its engine splits the model over 2"
    ]
    assert device_faults(["npu:0-7"], {"chat": ScenarioSettings("m", "vllm", engine_options=TP2)}) == []
    ranks = ScenarioSettings("m", "torch", devices_per_worker=3, engine_options={"tensor_parallel": 4})
    assert device_faults(["cuda:0-7"], {"chat": ranks}) == [], "on the processor"
    ranks.engine_options["device"] = "cuda"
    assert "splits the model over 4" in device_faults(["cuda:0-7"], {"chat": ranks})[0]


def test_each_worker_has_devices_of_its_own_until_it_has_ended() -> None:
    pool = DevicePool(read_devices(["npu:0-3"]))
    assert pool.take("prefill-1", 2) == {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}
    assert pool.take("decode-1", 2) == {"ASCEND_RT_VISIBLE_DEVICES": "2,3"}
    assert (pool.take("standby-1", 1), pool.room(1)) == (None, 0)
    pool.give_back("prefill-1")
    pool.give_back("gateway-1")
    assert (pool.room(1), pool.room(2), pool.room(3)) == (2, 1, 0)
    assert pool.take("standby-2", 2) == {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}


def test_neighbours_stay_together_where_single_ones_have_been_taken() -> None:
    pool = DevicePool(NODE)
    assert pool.take("a", 1) == {"ASCEND_RT_VISIBLE_DEVICES": "0"}
    assert pool.take("b", 4) == {"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"}
    assert pool.take("c", 2) == {"ASCEND_RT_VISIBLE_DEVICES": "2,3"}
    assert pool.take("d", 1) == {"ASCEND_RT_VISIBLE_DEVICES": "1"}
    for one in "abcd":
        pool.give_back(one)
    for one in range(8):
        pool.take(str(one), 1)
    pool.give_back("1")
    pool.give_back("6")
    assert pool.take("e", 2) == {"ASCEND_RT_VISIBLE_DEVICES": "1,6"}, "better apart than not at all"


def test_without_a_list_of_devices_workers_see_what_the_machine_shows_them() -> None:
    pool = DevicePool(Devices())
    assert [pool.take(str(one), 4) for one in range(9)] == [{}] * 9
    assert pool.room(4) == PLENTY
    assert (DevicePool(NODE).take("on the processor", 0), DevicePool(NODE).room(0)) == ({}, PLENTY)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=60))
def test_no_two_workers_ever_have_the_same_device(steps: list[tuple[int, int]]) -> None:
    pool, held = DevicePool(NODE), dict[str, set[str]]()
    for number, (who, size) in enumerate(steps):
        if who < 4 and held:
            gone = sorted(held)[who % len(held)]
            pool.give_back(gone)
            del held[gone]
            continue
        room, given_out = pool.room(size), pool.take(str(number), size)
        assert (given_out is None) == (room == 0)
        if given_out is not None:
            held[str(number)] = set(given_out["ASCEND_RT_VISIBLE_DEVICES"].split(","))
            assert len(held[str(number)]) == size
        assert sum(map(len, held.values())) == len(set().union(*held.values())) == 8 - len(pool.free)
