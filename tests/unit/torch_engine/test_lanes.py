"""Lanes beside gathering: the same bits for whoever comes, goes and stays away, in as much memory as there is."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.engine.torch_engine.cpu.lanes import SPARE, Lanes
from shared.engine.torch_engine.gathered import GatheredLayout
from shared.engine.torch_engine.sequence import Run
from tests.tiny_models import SHAPE, make
from tests.torch_rig import Rig

PLENTY = 1 << 30


def rig(directory: Path, lane_bytes: int, **options: Any) -> Rig:
    made = Rig(directory, num_blocks=300, enable_prefix_cache=False, **options)
    device = replace(made.device, lane_bytes=lane_bytes)
    made.layout = GatheredLayout(made.architecture, made.cache, device, made.cache._blocks.dtype)
    return made


def lanes_of(made: Rig) -> Lanes:
    assert made.layout._lanes is not None
    return made.layout._lanes


def used_bytes(lanes: Lanes) -> int:
    return sum(len(seats.runs) * seats.bank.keys * kind.key_bytes for kind in lanes._kinds for seats in kind.seats)


def held_bytes(lanes: Lanes) -> int:
    return sum(
        sum(tensor.nbytes for tensor in seats.bank._tensors.values()) for kind in lanes._kinds for seats in kind.seats
    )


class Traffic:
    """Sequences that join, leave and rest at random, the same on both rigs. All they compute is compared."""

    def __init__(self, *rigs: Rig, seed: int = 0) -> None:
        self.rigs = rigs
        self.chance = random.Random(seed)  # noqa: S311  no secret
        self.runs: dict[str, tuple[Run, ...]] = {}
        self.resting: set[str] = set()
        self.number = 0

    def token(self) -> int:
        return self.chance.randrange(3, SHAPE["vocab_size"])

    def join(self, length: int) -> None:
        self.number += 1
        tokens = [self.token() for _ in range(length)]
        self.runs[str(self.number)] = tuple(made.add(str(self.number), list(tokens)) for made in self.rigs)

    def leave(self, key: str) -> None:
        del self.runs[key]
        self.resting.discard(key)
        for made in self.rigs:
            made.scheduler.drop(key)

    def rest(self, key: str) -> None:
        self.resting.add(key)
        for made in self.rigs:
            del made.scheduler._decoding[key]

    def go_on(self, key: str) -> None:
        self.resting.discard(key)
        for made, run in zip(self.rigs, self.runs[key], strict=True):
            made.decode(run)

    def step(self) -> None:
        if self.rigs[0].scheduler.idle:
            return
        first, *others = [made.step() for made in self.rigs]
        for other in others:
            assert other.keys() == first.keys()
            for key, logits in first.items():
                assert torch.equal(other[key], logits), (key, self.runs[key][0].computed)
        for key in first:
            token = self.token()
            for made, run in zip(self.rigs, self.runs[key], strict=True):
                if key not in made.scheduler._decoding:
                    made.decode(run)
                run.tokens.append(token)

    def turn(self, most: int) -> None:
        """One step, and what happens before it."""
        decoding = [key for key in self.runs if key in self.rigs[0].scheduler._decoding]
        what: list[tuple[float, Callable[[], None]]] = [
            (0.4 if len(self.runs) < most else 0.0, lambda: self.join(self.chance.choice([3, 20, 31, 40, 61, 90]))),
            (0.08 if decoding else 0.0, lambda: self.leave(self.chance.choice(decoding))),
            (0.05 if decoding else 0.0, lambda: self.rest(self.chance.choice(decoding))),
            (0.3 if self.resting else 0.0, lambda: self.go_on(self.chance.choice(sorted(self.resting)))),
        ]
        for probability, act in what:
            if self.chance.random() < probability:
                act()
                break
        self.step()


@pytest.mark.parametrize(
    ("variant", "dtype"), [("gemma 3", "float32"), ("qwen 3", "float32"), ("gemma 3, one key head, capped", "bfloat16")]
)
def test_a_step_over_lanes_has_the_bits_of_one_that_gathers(variant: str, dtype: str, tmp_path: Path) -> None:
    make(variant, tmp_path)
    traffic = Traffic(rig(tmp_path, PLENTY, dtype=dtype), rig(tmp_path, 0, dtype=dtype))
    traffic.join(29)
    for _ in range(150):
        traffic.turn(most=7)
    for key in list(traffic.runs):
        traffic.leave(key)
    traffic.join(5)
    traffic.step()
    traffic.step()
    assert used_bytes(lanes_of(traffic.rigs[0])) == sum(
        32 * kind.key_bytes for kind in lanes_of(traffic.rigs[0])._kinds
    )


@pytest.mark.parametrize("block_size", [1, 5, 24])
def test_it_has_for_any_block_size(block_size: int, tmp_path: Path) -> None:
    make("gemma 3", tmp_path)
    traffic = Traffic(*(rig(tmp_path, size, block_size=block_size) for size in (PLENTY, 0)), seed=block_size)
    traffic.join(29)
    for _ in range(50):
        traffic.turn(most=4)


def test_sequences_for_whose_lanes_there_is_no_memory_are_gathered(tmp_path: Path) -> None:
    make("gemma 3", tmp_path)
    full = rig(tmp_path, PLENTY)
    room = 200 * sum(kind.key_bytes for kind in lanes_of(full)._kinds)
    traffic = Traffic(rig(tmp_path, room), rig(tmp_path, 0), seed=3)
    lanes = lanes_of(traffic.rigs[0])
    assert lanes._nbytes == room
    seen = set()
    for _ in range(80):
        traffic.turn(most=6)
        assert used_bytes(lanes) <= room
        assert held_bytes(lanes) <= SPARE * max(used_bytes(lanes), 1)
        seen.add((bool(lanes._seated), bool(lanes._aside)))
    assert (True, True) in seen


def test_a_step_like_the_one_before_copies_nothing_between_cache_and_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("gemma 3", tmp_path)
    made = rig(tmp_path, PLENTY)
    runs = [made.add(str(n), [n + 3] * (34 + n)) for n in range(5)]
    for run in runs:
        made.step()
        made.decode(run)
    for run in runs:
        run.tokens.append(7)
    made.step()
    reads: list[int] = []
    read = made.cache.read
    monkeypatch.setattr(made.cache, "read", lambda *given: reads.append(1) or read(*given))  # type: ignore[func-returns-value]
    for _ in range(8):
        for run in runs:
            run.tokens.append(7)
        made.step()
    assert not reads
    made.scheduler.drop("4")
    made.add("6", [9] * 33)
    for run in runs[:4]:
        run.tokens.append(7)
    made.step()
    assert reads  # the prompt's, which the test can see
