"""Prefill and decode with different numbers of tensor-parallel ranks, each a process with its own heads."""

from collections.abc import Iterator

import pytest

pytest.importorskip("vllm")

from shared.engine.vllm_engine.notes import Ended, Gathered, Loaded, Lost
from tests.vllm.rig import Arena, Core, cores, make_model, relay
from tests.vllm.test_connector import prompt_of, sent

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Core]]:
    """Two ranks, and one. In float32, so that sums over ranks do not change a text."""
    model = make_model(tmp_path_factory.mktemp("model"), "float32")
    arena = Arena(1 << 30)
    with cores(
        lambda: Core(model, arena, sends=True, dtype="float32", tensor_parallel_size=2),
        lambda: Core(model, arena, sends=True, dtype="float32"),
    ) as made:
        yield made[0], made[1]


def test_both_see_the_same_buffer(pair: tuple[Core, Core]) -> None:
    two, one = (core.hub.geometry for core in pair)
    assert two is not None
    assert one is not None
    assert len(pair[0].hub.registered) == 2
    assert two.identity == one.identity
    assert two.before == one.before
    assert two.block_bytes == one.block_bytes


@pytest.mark.parametrize("tokens", [5, 127, 128, 129, 300])
@pytest.mark.parametrize("way", ["two ranks to one", "one rank to two", "two ranks to two"])
def test_a_hand_off_between_numbers_of_ranks_keeps_the_text(pair: tuple[Core, Core], way: str, tokens: int) -> None:
    two, one = pair
    prefill, decode = {
        "two ranks to one": (two, one),
        "one rank to two": (one, two),
        "two ranks to two": (two, two),
    }[way]
    prompt = prompt_of(tokens)
    for core in pair:
        core.idle()
    if prefill is not decode:
        got = relay(prefill, decode, prompt, 16, f"{way} {tokens}")
    else:
        transfer, first = sent(prefill, prompt, f"{way} {tokens}")
        prefill.idle()  # else it would find the prompt in its own cache
        again = prefill.transfer(f"{way} {tokens} again", tokens, offset=transfer.offset)
        got = [first, *decode.finish(decode.add([*prompt, first], 15, again))]
        assert [type(note) for note in decode.hub.of(again.transfer)].count(Loaded) == 2
    for core in pair:
        core.idle()
    assert got == one.generate(prompt, 16)


def test_a_range_that_only_one_rank_cannot_reach_fails_the_request_once(pair: tuple[Core, Core]) -> None:
    """Of the last tensor the higher rank's heads lie last: its part alone leaves the arena."""
    two, one = pair
    prompt = prompt_of(100, 1)
    transfer, first = sent(one, prompt, "short")
    geometry = two.hub.geometry
    assert geometry is not None
    edge = two.arena.nbytes - geometry.block_bytes + 4096
    bad = two.transfer("short bad", 100, offset=edge)
    request = two.add([*prompt, first], 8, bad)
    two.until(lambda: request in two.ended, "the failed load ended its request")
    assert two.ended[request] == "ERROR"
    assert sorted(kind.__name__ for kind in two.moved("short bad")) == ["Loaded", "Lost"]
    two.idle()
    got = [first, *two.finish(two.add([*prompt, first], 8, transfer))]
    one.idle()
    assert got == one.generate(prompt, 9)


def test_aborts_with_two_ranks_leave_no_block_held(pair: tuple[Core, Core]) -> None:
    two, one = pair
    prompt = prompt_of(200, 2)
    transfer, first = sent(one, prompt, "aborted")
    for turn in range(20):
        load = two.transfer(f"aborted d{turn}", 200, offset=transfer.offset)
        going = two.add([*prompt, first], 30, load)
        coming = two.add(prompt_of(150, turn), 1, two.transfer(f"aborted p{turn}", 150), sends=True)
        with two.hub.changed:
            two.hub.changed.wait(0.004 * turn)
        two.abort(going)
        two.abort(coming)
    for turn in range(20):
        for name in (f"aborted d{turn}", f"aborted p{turn}"):
            two.until(lambda n=name: any(isinstance(note, Ended) for note in two.hub.of(n)), "it ended")
    two.idle()
    for turn in range(20):
        for name in (f"aborted d{turn}", f"aborted p{turn}"):
            notes = two.hub.of(name)
            (ended,) = (note for note in notes if isinstance(note, Ended))
            assert sum(isinstance(note, Loaded | Gathered | Lost) for note in notes) == 2 * ended.moves
