"""Steps that are launched before the tokens of the one before are read: the same texts as one step after the other."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine import Sampled, Sequence
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.runner import Runner
from shared.errors import EngineFailed, Overloaded
from shared.messages import Constraint, Finish, Stopping
from tests.tiny_models import edit, make
from tests.torch_rig import sequence
from tests.unit.torch_engine.engine.running import relay, running
from tests.unit.torch_engine.overlapping import Driver, opened, overlapping

PROMPTS = [[5, 17, 33, 8, 90, 121, 64], [9, 9, 4], [7] * 19, [5, 17, 33, 8, 90, 121, 64, 12, 13, 14]]
KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "seed": 3},
    {"temperature": 1.0, "seed": 4, "top_p": 0.8, "top_k": 30, "logprobs": 2},
    {"logprobs": 0},
    {"logit_bias": {11: 3.0}},
    {"repetition_penalty": 1.4},
    {"temperature": 0.7, "presence_penalty": 1.0, "seed": 5},
    {"constraint": Constraint("regex", "[abc]{3,40}")},
]


class Wanted(NamedTuple):
    """Of a sequence; kind and prompt are places in the lists."""

    kind: int
    prompt: int
    most: int  # tokens
    least: int = 0
    stop: int = -1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(scope="module")
def runner(model: Path) -> Iterator[Runner]:
    with opened(model, overlaps=True) as made:
        yield made


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[Any]:
    """What a sequence becomes where one step follows the other, and nobody else is served."""
    with opened(model, overlaps=False) as synchronous:

        @cache
        def texts(wanted: Wanted) -> list[Sampled]:
            driver = Driver(synchronous)
            driver.ask(asked("alone", wanted))
            driver.run()
            assert not driver.failed
            return driver.sampled["alone"]

        yield texts


def asked(key: str, wanted: Wanted) -> Sequence:
    stops = [wanted.stop] if wanted.stop >= 0 else []
    stopping = Stopping(max_tokens=wanted.most, min_tokens=wanted.least, stop_token_ids=stops)
    return sequence(key, PROMPTS[wanted.prompt], stopping=stopping, **KINDS[wanted.kind])


def named(sampled: list[Sampled], key: str) -> list[Sampled]:
    return [one._replace(key=key) for one in sampled]


loads = st.lists(
    st.tuples(
        st.integers(0, len(KINDS) - 1),
        st.integers(0, len(PROMPTS) - 1),
        st.integers(1, 20),  # max_tokens
        st.integers(0, 3),  # min_tokens
        st.one_of(st.none(), st.integers(1, 12)),  # the text's own token at that place stops it
        st.integers(0, 5),  # turns before the next one comes
        st.one_of(st.none(), st.integers(1, 9)),  # is released when it has so many tokens
        st.booleans(),  # its buffer grows
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=25, deadline=None)
@given(load=loads)
def test_whatever_comes_and_goes_every_text_is_what_it_is_alone(runner: Runner, alone: Any, load: Any) -> None:
    driver, expected, releases = Driver(runner), {}, {}
    for place, (kind, prompt, most, least, stop, turns, release, grows) in enumerate(load):
        wanted = Wanted(kind, prompt, most, least)
        if stop is not None:
            text = alone(wanted)
            wanted = wanted._replace(stop=text[min(stop, len(text)) - 1].token_id)
        key = str(place)
        expected[key] = named(alone(wanted), key)
        releases[key] = release
        driver.ask(asked(key, wanted), grows=grows)
        for _ in range(turns):
            turn(driver, releases)
    while not runner.idle:
        turn(driver, releases)
    for key, text in expected.items():
        got = driver.sampled[key]
        assert got == text[: len(got)]
        assert len(got) == len(text) or releases[key] is not None
    assert not driver.failed
    assert runner.load.free_blocks == runner.info.blocks


def turn(driver: Driver, releases: dict[str, int | None]) -> None:
    if not driver.runner.idle:
        driver.turn()
    for key, sampled in driver.sampled.items():
        if (least := releases[key]) is not None and len(sampled) >= least:
            driver.release(key)


def launches(runner: Runner, driver: Driver) -> list[int]:
    """How many sequences decode in each step that is launched."""
    seen: list[int] = []
    forward = Executor.forward

    def counted(executor: Executor, plan: Any) -> Any:
        seen.append(len(plan.decodes))
        return forward(executor, plan)

    with patch.object(Executor, "forward", counted):
        driver.run()
    return seen


def decoding(runner: Runner, *sequences: Sequence) -> Driver:
    """Prompts are through, nothing is decoded yet."""
    driver = Driver(runner)
    for one in sequences:
        driver.ask(one)
    while any(not sampled for sampled in driver.sampled.values()):
        driver.turn()
    return driver


def test_a_step_is_launched_before_the_one_before_is_read(runner: Runner) -> None:
    driver = decoding(runner, sequence("a", PROMPTS[0], max_tokens=4))
    read = []
    for _ in range(3):
        driver.turn()
        read.append(len(driver.sampled["a"]))
        assert not runner.idle
    assert read == [1, 2, 3]
    driver.run()
    assert len(driver.sampled["a"]) == 4


def test_an_end_that_is_known_is_not_stepped_past_and_one_that_is_not_costs_one_row(runner: Runner, alone: Any) -> None:
    text = [one.token_id for one in alone(Wanted(0, 0, 12))]
    place = next(place for place in range(4, 12) if text[place] not in text[:place])
    assert launches(runner, decoding(runner, sequence("a", PROMPTS[0], max_tokens=9))) == [1] * 8
    stopped = decoding(runner, asked("a", Wanted(0, 0, 12, stop=text[place])))
    assert launches(runner, stopped) == [1] * (place + 1)
    assert len(stopped.sampled["a"]) == place + 1
    assert stopped.sampled["a"][-1].finish is Finish.STOP
    assert launches(runner, decoding(runner, sequence("a", [7] * 60, max_tokens=99))) == [1] * 3  # the context is 64


@pytest.mark.parametrize("kind", [5, 7])
def test_what_needs_the_token_is_read_in_its_own_step_and_the_others_with_it(runner: Runner, kind: int) -> None:
    driver = decoding(runner, sequence("a", PROMPTS[0], max_tokens=20))
    driver.turn()
    driver.ask(asked("b", Wanted(kind, 1, 6)))
    while not driver.sampled["b"]:
        driver.turn()
    seen = len(driver.sampled["a"])
    while driver.sampled["b"][-1].finish is None:
        before = len(driver.sampled["b"])
        driver.turn()
        seen += 1
        assert (len(driver.sampled["a"]), len(driver.sampled["b"])) == (seen, before + 1)
    driver.run()


def test_nobody_is_pushed_out_for_a_block_that_an_unread_end_gives_back(model: Path, alone: Any) -> None:
    text = alone(Wanted(0, 0, 12))
    with opened(model, overlaps=True, num_blocks=7, max_model_len=28, enable_prefix_cache=False) as runner:
        stop = Stopping(max_tokens=12, stop_token_ids=[text[5].token_id])  # 13 tokens, in 4 blocks
        driver = decoding(runner, sequence("a", PROMPTS[0], stopping=stop))
        driver.ask(sequence("b", PROMPTS[1], max_tokens=16))  # 19 tokens, in 5 blocks
        driver.run()
        assert not driver.failed
        assert [len(driver.sampled[key]) for key in "ab"] == [6, 16]


def test_out_of_blocks_the_youngest_fails_after_all_of_its_tokens_were_told(model: Path) -> None:
    told = []
    for overlaps in (False, True):
        with opened(model, overlaps=overlaps, num_blocks=8, max_model_len=32, enable_prefix_cache=False) as runner:
            driver = decoding(runner, *(sequence(key, PROMPTS[0], max_tokens=20) for key in ("old", "young")))
            driver.run()
        assert isinstance(driver.failed.pop("young"), Overloaded)
        assert not driver.failed
        told.append(driver.sampled)
    assert told[0] == told[1]
    assert len(told[0]["old"]) == 20


def test_a_released_key_can_come_again_while_its_step_is_in_the_air(runner: Runner, alone: Any) -> None:
    driver = decoding(runner, sequence("a", PROMPTS[0], max_tokens=20))
    for _ in range(3):
        driver.turn()
    driver.release("a")
    driver.ask(asked("a", Wanted(1, 1, 7)))
    driver.run()
    assert driver.sampled["a"] == named(alone(Wanted(1, 1, 7)), "a")


def test_what_is_not_a_number_fails_its_own_sequence_though_the_next_step_is_launched(runner: Runner) -> None:
    forward = Executor.forward

    def broken(executor: Executor, plan: Any) -> Any:
        scores = forward(executor, plan)
        for row, run in enumerate(scores.samples):
            if run.key == "bad" and run.computed == len(PROMPTS[0]) + 2:
                with torch.inference_mode():
                    scores.logits[row] = float("nan")
        return scores

    driver = decoding(runner, *(sequence(key, PROMPTS[0], max_tokens=9) for key in ("bad", "good")))
    with patch.object(Executor, "forward", broken):
        driver.run()
    assert isinstance(driver.failed["bad"], EngineFailed)
    assert len(driver.sampled["bad"]) == 3
    assert len(driver.sampled["good"]) == 9


async def test_an_engine_whose_steps_overlap_tells_every_token_and_comes_to_rest(model: Path, alone: Any) -> None:
    with overlapping():
        engine = running(model)
        started = await engine.__aenter__()
    try:
        for key in ("first", "second"):
            text = await relay(started, started, key, PROMPTS[0], max_tokens=8)
            assert text == [one.token_id for one in alone(Wanted(0, 0, 8))]
    finally:
        await engine.__aexit__(None, None, None)
