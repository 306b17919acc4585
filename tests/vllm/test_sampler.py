"""Our sampler inside vLLM draws what the torch engine draws from the same model, and continues every text exactly."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shared.engine import Sequence
from shared.messages import Constraint, Finish, Sampling, Stopping
from tests.engine_house import House, house, relay
from tests.vllm.drawing import EOS, UNSAID, Drawing, Drawn

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
pytest.importorskip("vllm")

END: Final = 3
PROMPT: Final = list(b"The fox is")
LONG_PROMPT: Final = list(b"The quick brown fox jumps over the lazy dog. " * 4)
"""Several of vLLM's steps."""
DEAF: Final = {"ignore_eos": True}
JSON: Final = '{"type": "object", "properties": {"a": {"enum": [1, 22, 333]}}, "required": ["a"]}'
NO_SPACE: Final = dict.fromkeys(b" \t\n\r", -100.0)
ASKS: Final[dict[str, tuple[list[int], dict[str, Any], dict[str, Any]]]] = {
    "greedy": (PROMPT, {}, {"temperature": 0.0}),
    "drawn": (PROMPT, {}, {"seed": 1}),
    "choice": (PROMPT, {}, {"seed": 1, "choice": 2}),
    "hot": (PROMPT, {}, {"seed": -5, "temperature": 1.7}),
    "top-p": (PROMPT, {}, {"seed": 2, "top_p": 0.5, "temperature": 0.8}),
    "top-k": (PROMPT, {}, {"seed": 3, "top_k": 4}),
    "min-p": (PROMPT, {}, {"seed": 4, "min_p": 0.2, "top_p": 0.95}),
    "repetition": (PROMPT, {}, {"seed": 13, "temperature": 0.4, "repetition_penalty": 1.5}),
    "presence": (PROMPT, {}, {"temperature": 0.0, "presence_penalty": 1.5, "frequency_penalty": 0.7}),
    "drawn, penalised": (PROMPT, {}, {"seed": 5, "frequency_penalty": 2.0, "repetition_penalty": 1.2}),
    "bias": (PROMPT, {}, {"seed": 6, "logit_bias": {65: 6.0, 66: 6.0, 67: -100.0}}),
    "ends": (PROMPT, {"stop_token_ids": [70, 71, 72]}, {"seed": 7, "logit_bias": {70: 3.0, 71: 3.0, END: 3.0}}),
    "not yet": (PROMPT, {"min_tokens": 12}, {"temperature": 0.0, "logit_bias": {END: 100.0}}),
    "long prompt": (LONG_PROMPT, {}, {"seed": 8}),
    "long prompt, regex": (LONG_PROMPT, {}, {"seed": 9, "constraint": Constraint("regex", "([a-f]{3}-){4}[AB]")}),
    "json": (PROMPT, {}, {"seed": 10, "constraint": Constraint("json_schema", JSON), "logit_bias": NO_SPACE}),
    "open end": (PROMPT, {"min_tokens": 9}, {"seed": 11, "constraint": Constraint("regex", "[a-z]{5,}")}),
    "deaf": (PROMPT, DEAF, {"seed": 12, "constraint": Constraint("regex", "[ab]{4}(cd|e)")}),
    "empty": (PROMPT, {}, {"constraint": Constraint("regex", "")}),
}


def sequence(name: str, done: tuple[int, ...] = ()) -> Sequence:
    prompt, stopping, sampling = ASKS[name]
    chosen = Stopping(**{"max_tokens": 24, **stopping})
    return Sequence(f"{name} after {len(done)}", [*prompt, *done], len(prompt), Sampling(**sampling), chosen)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("drawn")
    make("llama", directory, head_dim=32, max_position_embeddings=512)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[Drawing]:
    running = Drawing(model)
    yield running
    running.close()


@pytest.fixture(scope="module")
def whole(vllm: Drawing) -> dict[str, Drawn]:
    """Every ask, all at once."""
    return dict(zip(ASKS, vllm.draw(*map(sequence, ASKS)), strict=True))


async def by_torch(engines: House, *names: str) -> list[tuple[list[int], Finish | None]]:
    worker = await engines.worker(EOS, max_model_len=256, num_blocks=512, max_num_seqs=32)
    sampled = await asyncio.gather(*(relay(worker, worker, sequence(name)) for name in names))
    return [([one.token_id for one in all_], all_[-1].finish) for all_ in sampled]


async def test_the_tokens_are_those_of_the_torch_engine(model: Path, whole: dict[str, Drawn]) -> None:
    async with house("torch", model, dtype="float32") as engines:
        expected = dict(zip(ASKS, await by_torch(engines, *ASKS), strict=True))
    for name, (tokens, finish) in expected.items():
        drawn = whole[name]
        end = END if not ASKS[name][1].get("ignore_eos") else UNSAID
        if finish is Finish.STOP and drawn.tokens != tokens:  # complete with its last token, which vLLM cannot know
            tokens = [*tokens, end]  # noqa: PLW2901
        assert drawn.tokens == tokens, name
        assert (drawn.finish == "stop") is (finish is Finish.STOP), name


def test_the_asks_differ_and_do_what_they_should(whole: dict[str, Drawn]) -> None:
    by_tokens: dict[tuple[int, ...], list[str]] = {}
    for name, drawn in whole.items():
        by_tokens.setdefault(tuple(drawn.tokens), []).append(name)
    assert [names for names in by_tokens.values() if len(names) > 1] == []
    assert 67 not in whole["bias"].tokens
    assert {65, 66} & set(whole["bias"].tokens)
    assert whole["ends"].stop in (70, 71, 72, END)
    assert (len(whole["not yet"].tokens), whole["not yet"].stop) == (13, END)
    assert json.loads(bytes(whole["json"].tokens[:-1]))["a"] in (1, 22, 333)
    assert re.fullmatch(r"([a-f]{3}-){4}[AB]", bytes(whole["long prompt, regex"].tokens[:-1]).decode())
    assert re.fullmatch(r"[a-z]{9,}", bytes(whole["open end"].tokens[:-1]).decode())
    assert re.fullmatch(r"[ab]{4}(cd|e)", bytes(whole["deaf"].tokens[:-1]).decode())
    assert whole["deaf"].stop == UNSAID
    assert whole["empty"].tokens == [END]


@pytest.mark.parametrize("name", [name for name in ASKS if name not in ("greedy", "empty")])
def test_a_text_continued_at_every_point_is_the_whole(vllm: Drawing, whole: dict[str, Drawn], name: str) -> None:
    tokens = whole[name].tokens
    begun = [tuple(tokens[:done]) for done in range(1, len(tokens))]
    rest = vllm.draw(*(sequence(name, done) for done in begun))
    assert [[*done, *drawn.tokens] for done, drawn in zip(begun, rest, strict=True)] == [tokens] * len(begun)


def test_a_text_is_the_same_alone(vllm: Drawing, whole: dict[str, Drawn]) -> None:
    for name in ("drawn", "drawn, penalised", "json", "long prompt, regex"):
        assert vllm.draw(sequence(name)) == [whole[name]]


def test_texts_that_are_pushed_out_and_come_back_are_the_same(vllm: Drawing) -> None:
    """Eight of them want 48 blocks of 16."""
    free = [
        Sequence(f"{n}", LONG_PROMPT[: 60 + n], 60 + n, Sampling(seed=n, **more), Stopping(max_tokens=120))
        for n, more in enumerate(
            [{}, {"top_p": 0.7}, {"frequency_penalty": 1.0}, {"constraint": Constraint("regex", "([a-z]{4} )+")}] * 2
        )
    ]
    together = vllm.draw(*free)
    assert [vllm.draw(one)[0] for one in free] == together


def test_a_text_that_leads_nowhere_ends_and_its_neighbours_do_not(vllm: Drawing, whole: dict[str, Drawn]) -> None:
    dead = Constraint("regex", "[ab]{3}中")  # of 中's bytes the model has none
    stuck = [
        Sequence("stuck", PROMPT, len(PROMPT), Sampling(seed=1, constraint=dead), Stopping(max_tokens=24, **deaf))
        for deaf in ({}, DEAF)
    ]
    first, deaf, drawn, bound = vllm.draw(*stuck, sequence("drawn"), sequence("json"))
    assert (len(first.tokens), first.stop) == (4, END)
    assert (len(deaf.tokens), deaf.stop) == (4, UNSAID)
    assert set(first.tokens[:3]) <= set(b"ab")
    assert (drawn, bound) == (whole["drawn"], whole["json"])


def test_a_constraint_that_is_none_ends_its_own_row(vllm: Drawing, whole: dict[str, Drawn]) -> None:
    bad = Sequence("bad", PROMPT, len(PROMPT), Sampling(constraint=Constraint("regex", "a[b")), Stopping(max_tokens=9))
    refused, drawn = vllm.draw(bad, sequence("drawn"))
    assert (refused.tokens, refused.stop) == ([END], END)
    assert drawn == whole["drawn"]
