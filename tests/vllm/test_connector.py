"""The connector in real vLLM: a prefill's core and a decode's, one arena, greedy tokens equal to those of one core."""

import random
from collections.abc import Callable, Iterator

import msgspec
import pytest

pytest.importorskip("vllm")

from shared.engine.vllm_engine.notes import Ended, Gathered, Loaded, Lost, Skipped, Transfer
from tests.vllm.rig import BLOCK, Arena, Core, cores, make_model, relay

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

DECODE_BLOCKS = 24


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Core]]:
    model = make_model(tmp_path_factory.mktemp("model"))
    arena = Arena(1 << 30)
    with cores(
        lambda: Core(model, arena, sends=True, max_num_batched_tokens=256),
        lambda: Core(model, arena, sends=False, num_gpu_blocks_override=DECODE_BLOCKS),
    ) as made:
        yield made[0], made[1]


@pytest.fixture
def prefill(pair: tuple[Core, Core]) -> Iterator[Core]:
    """The core that sends; a test leaves no block held."""
    pair[0].idle()
    yield pair[0]
    pair[0].idle()


@pytest.fixture
def decode(pair: tuple[Core, Core]) -> Iterator[Core]:
    """The core that loads; a test leaves no block held."""
    pair[1].idle()
    yield pair[1]
    pair[1].idle()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a transfer, unlike any other test's."""
    return str(request.node.name)


def prompt_of(tokens: int, seed: int = 0) -> list[int]:
    draw = random.Random(f"{tokens} {seed}")  # noqa: S311
    return [draw.randrange(3, 250) for _ in range(tokens)]


def sent(prefill: Core, prompt: list[int], name: str) -> tuple[Transfer, int]:
    """A buffer that lies ready, and the first token."""
    transfer = prefill.transfer(name, len(prompt))
    (first,) = prefill.finish(prefill.add(prompt, 1, transfer, sends=True))
    assert set(prefill.moved(name)) == {Gathered}
    return transfer, first


@pytest.mark.parametrize("tokens", [1, 2, 31, 127, 128, 129, 255, 256, 257, 300, 900])
def test_tokens_with_a_hand_off_are_those_of_one_engine(prefill: Core, decode: Core, tokens: int, name: str) -> None:
    """Above 256 tokens the prompt is prefilled in chunks."""
    prompt = prompt_of(tokens)
    got = relay(prefill, decode, prompt, 24, name)
    prefill.idle()
    assert got == prefill.generate(prompt, 24)
    assert [type(note) for note in decode.hub.of(name)] == [Loaded, Ended]
    assert decode.cached[max(decode.cached, key=int)] == (0, tokens), "the prompt was computed again"


def test_many_prompts_at_once_arrive_each_in_its_own_place(prefill: Core, decode: Core, name: str) -> None:
    """In company bfloat16 rounds otherwise, so that texts part later on; with another's KV they part at once."""
    prompts = [prompt_of(70 + 40 * seed, seed) for seed in range(8)]
    transfers = [prefill.transfer(f"{name} {place}", len(prompt)) for place, prompt in enumerate(prompts)]
    firsts = [prefill.add(prompt, 1, t, sends=True) for prompt, t in zip(prompts, transfers, strict=True)]
    starts = [prompt + prefill.finish(first) for prompt, first in zip(prompts, firsts, strict=True)]
    for transfer in transfers:
        prefill.moved(transfer.transfer)
    rest = [decode.add(start, 12, t) for start, t in zip(starts, transfers, strict=True)]
    for prompt, start, one in zip(prompts, starts, rest, strict=True):
        got = start[len(prompt) :] + decode.finish(one)
        prefill.idle()
        assert got[:4] == prefill.generate(prompt, 4)


def test_a_prefix_that_prefill_has_cached_is_sent_all_the_same(prefill: Core, decode: Core, name: str) -> None:
    prefix = prompt_of(256)
    wanted = [prefill.generate(prefix + prompt_of(40, seed), 12) for seed in (1, 2)]
    for seed in (1, 2):
        assert relay(prefill, decode, prefix + prompt_of(40, seed), 12, f"{name} {seed}") == wanted[seed - 1]
    decode.idle()


def test_blocks_that_decode_has_cached_are_not_loaded_again(prefill: Core, decode: Core, name: str) -> None:
    prefix = prompt_of(256, 7)
    prompts = [prefix + prompt_of(50, seed) for seed in (1, 2)]
    relay(prefill, decode, prompts[0], 12, f"{name} 1")
    transfer, first = sent(prefill, prompts[1], f"{name} 2")
    _spoil(decode, transfer, blocks=2)  # in its two first blocks: nobody may read them
    request = decode.add([*prompts[1], first], 11, transfer)
    got = [first, *decode.finish(request)]
    assert decode.cached[request] == (256, 50)
    prefill.idle()
    assert got == prefill.generate(prompts[1], 12)


def _spoil(core: Core, transfer: Transfer, blocks: int) -> None:
    """Overwrite a buffer's first blocks, of every head of every tensor."""
    geometry = core.hub.geometry
    assert geometry is not None
    slab = geometry.block_bytes // 16  # 4 layers of 4 heads
    for column in range(16):
        start = transfer.offset + column * transfer.blocks * slab
        core.arena.memory[start : start + blocks * slab] = b"\x7b" * (blocks * slab)


def test_a_spoilt_buffer_shows(prefill: Core, decode: Core, name: str) -> None:
    """Or the tests above prove nothing."""
    prompt = prompt_of(300, 3)
    transfer, first = sent(prefill, prompt, name)
    _spoil(decode, transfer, blocks=1)
    got = [first, *decode.finish(decode.add([*prompt, first], 11, transfer))]
    prefill.idle()
    assert got != prefill.generate(prompt, 12)


def test_a_prompt_that_decode_has_wholly_is_not_loaded(prefill: Core, decode: Core, name: str) -> None:
    prompt = prompt_of(256, 9)
    first_time = relay(prefill, decode, prompt, 12, f"{name} 1")
    again = relay(prefill, decode, prompt, 12, f"{name} 2")
    assert again == first_time
    assert decode.hub.of(f"{name} 2") == [Skipped(f"{name} 2"), Ended(f"{name} 2", moves=False)]


@pytest.mark.parametrize("wrong", ["beyond the arena", "before it"])
def test_a_load_that_fails_ends_its_request_alone(prefill: Core, decode: Core, name: str, wrong: str) -> None:
    prompt = prompt_of(200, 4)
    transfer, first = sent(prefill, prompt, name)
    bad = msgspec.structs.replace(
        transfer,
        transfer=f"{name} bad",
        offset=decode.arena.nbytes - 4096 if wrong == "beyond the arena" else -(1 << 30),
    )
    companion = decode.add(prompt_of(60, 5), 40)
    request = decode.add([*prompt, first], 11, bad)
    decode.until(lambda: request in decode.ended, "the failed load ended its request")
    assert decode.ended[request] == "ERROR"
    assert decode.moved(f"{name} bad") == [Lost]
    assert len(decode.finish(companion)) == 40
    decode.idle()
    got = [first, *decode.finish(decode.add([*prompt, first], 11, transfer))]
    prefill.idle()
    assert got == prefill.generate(prompt, 12)


def test_a_gather_that_fails_is_told_and_its_blocks_are_freed(prefill: Core, name: str) -> None:
    transfer = prefill.transfer(name, 200, offset=prefill.arena.nbytes - 4096)
    prefill.finish(prefill.add(prompt_of(200, 6), 1, transfer, sends=True))
    assert prefill.moved(name) == [Lost]


def _at_once(core: Core, request: str, name: str) -> None:
    """Queued, or in its first step."""


def _loaded(core: Core, request: str, name: str) -> None:
    core.until(lambda: any(isinstance(note, Loaded) for note in core.hub.of(name)), "it was loaded")


def _decoding(core: Core, request: str, name: str) -> None:
    core.until(lambda: len(core.tokens[request]) > 2, "tokens came")


def _ended(core: Core, request: str, name: str) -> None:
    core.until(lambda: request in core.ended, "it ended")


STAGES: list[Callable[[Core, str, str], None]] = [_at_once, _loaded, _decoding, _ended]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_decode_aborted_at_any_stage_gives_its_blocks_back(
    prefill: Core, decode: Core, name: str, stage: Callable[[Core, str, str], None]
) -> None:
    prompt = prompt_of(300, 11)
    transfer, first = sent(prefill, prompt, name)
    count = 40 if stage is _ended else 600
    request = decode.add([*prompt, first], count, transfer)
    stage(decode, request, name)
    decode.abort(request)
    decode.until(lambda: any(isinstance(note, Ended) for note in decode.hub.of(name)), "it was told to have ended")
    decode.idle()
    notes = decode.hub.of(name)
    assert sum(isinstance(note, Ended) for note in notes) == 1
    (ended,) = (note for note in notes if isinstance(note, Ended))
    assert sum(isinstance(note, Loaded | Lost) for note in notes) == ended.moves
    assert relay(prefill, decode, prompt, 8, f"{name} after")[0] == first


@pytest.mark.parametrize("stage", [_at_once, _ended], ids=lambda stage: stage.__name__)
def test_a_prompt_aborted_at_any_stage_gives_its_blocks_back(
    prefill: Core, name: str, stage: Callable[[Core, str, str], None]
) -> None:
    transfer = prefill.transfer(name, 900)
    request = prefill.add(prompt_of(900, 12), 1, transfer, sends=True)
    stage(prefill, request, name)
    prefill.abort(request)
    prefill.until(lambda: any(isinstance(note, Ended) for note in prefill.hub.of(name)), "it was told to have ended")
    prefill.idle()
    (ended,) = (note for note in prefill.hub.of(name) if isinstance(note, Ended))
    assert sum(isinstance(note, Gathered) for note in prefill.hub.of(name)) == ended.moves


def test_a_storm_of_aborts_leaves_both_engines_whole(prefill: Core, decode: Core, name: str) -> None:
    """Clients that cancel at random moments: what ends other connectors' cores once a day."""
    draw = random.Random(name)  # noqa: S311
    ready = [(prompt, *sent(prefill, prompt, f"{name} {n}")) for n, prompt in enumerate(map(prompt_of, [90, 200, 300]))]
    for turn in range(60):
        prompt, transfer, first = ready[turn % 3]
        again = msgspec.structs.replace(transfer, transfer=f"{name} d{turn}")
        going = decode.add([*prompt, first], 50, again)
        coming = prefill.add(prompt_of(250, 100 + turn), 1, prefill.transfer(f"{name} p{turn}", 250), sends=True)
        for core, request, moment in ((decode, going, draw.random() * 0.1), (prefill, coming, draw.random() * 0.05)):
            if draw.random() < 0.8:
                with core.hub.changed:
                    core.hub.changed.wait(moment)
                core.abort(request)
        for core, transfer_name in ((decode, f"{name} d{turn}"), (prefill, f"{name} p{turn}")):
            if draw.random() < 0.3:
                core.until(
                    lambda c=core, t=transfer_name: any(isinstance(note, Ended) for note in c.hub.of(t)), "it ended"
                )
    for core, side in ((decode, "d"), (prefill, "p")):
        for turn in range(60):
            core.until(
                lambda c=core, t=f"{name} {side}{turn}": any(isinstance(note, Ended) for note in c.hub.of(t)),
                "it ended",
            )
        core.idle()
        for turn in range(60):
            notes = core.hub.of(f"{name} {side}{turn}")
            (ended,) = (note for note in notes if isinstance(note, Ended))
            assert sum(isinstance(note, Loaded | Gathered | Lost) for note in notes) == ended.moves


def test_requests_preempted_after_their_load_are_finished_without_it(prefill: Core, decode: Core, name: str) -> None:
    """Six texts that outgrow decode's few blocks."""
    prompts = [prompt_of(3 * BLOCK - 20, 20 + seed) for seed in range(7)]
    ready = [sent(prefill, prompt, f"{name} {place}") for place, prompt in enumerate(prompts)]
    requests = [
        decode.add([*prompt, first], 60, transfer) for prompt, (transfer, first) in zip(prompts, ready, strict=True)
    ]
    for request in requests:
        assert len(decode.finish(request)) == 60
    for place in range(7):
        assert [type(note) for note in decode.hub.of(f"{name} {place}")] == [Loaded, Ended]
