"""The option `cpus`: what it takes, and that the computing thread and torch's own are held there."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shared.engine.torch_engine.cpu.cores import cores, hold
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.options import read_options
from shared.errors import ConfigError

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a system that holds no thread on cores")


def in_a_thread(work: Callable[[], object]) -> object:
    """What it returned, or raised; the thread and what it was held on are gone."""
    result: list[object] = []

    def live() -> None:
        try:
            result.append(work())
        except ConfigError as error:
            result.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    return result[0]


@pytest.mark.parametrize(
    ("text", "expected"), [("", set()), ("0", {0}), ("0-3", {0, 1, 2, 3}), ("0-1, 8,10-11", {0, 1, 8, 10, 11})]
)
def test_a_list_of_cores_is_read_as_the_kernel_writes_it(text: str, expected: set[int]) -> None:
    assert cores(text) == expected
    assert read_options({"cpus": text}).cpus == text


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "0,,1", "0-1-2", "0;1", "1.5", "99999"])
def test_what_is_no_list_of_cores_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"engine_options\.cpus.*cores"):
        read_options({"cpus": text})


def test_the_thread_and_those_that_torch_starts_from_it_are_held_and_no_other() -> None:
    allowed = os.sched_getaffinity(0)
    one = min(allowed)

    def computing() -> tuple[set[int], int, list[set[int]]]:
        before = {task.name for task in Path("/proc/self/task").iterdir()}
        resolve("cpu", cpus=str(one), threads=3)
        torch.ones(1 << 20).exp_().sum()  # large enough for torch to share it out
        after = {task.name for task in Path("/proc/self/task").iterdir()}
        return os.sched_getaffinity(0), torch.get_num_threads(), [os.sched_getaffinity(int(i)) for i in after - before]

    held, threads, started = in_a_thread(computing)  # type: ignore[misc]
    assert held == {one}
    assert threads == 3
    assert started == [{one}, {one}]
    assert os.sched_getaffinity(0) == allowed


def test_without_a_number_of_threads_each_core_gets_one() -> None:
    allowed = sorted(os.sched_getaffinity(0))

    def counted() -> int:
        resolve("cpu", cpus=",".join(map(str, allowed)))
        return torch.get_num_threads()

    assert in_a_thread(counted) == len(allowed)
    assert in_a_thread(lambda: hold("")) == 0


def test_a_core_that_the_process_may_not_use_is_named() -> None:
    for text in ("9998", f"{min(os.sched_getaffinity(0))},9998"):
        refusal = in_a_thread(lambda text=text: resolve("cpu", cpus=text))
        assert isinstance(refusal, ConfigError)
        assert "9998" in str(refusal)
