"""What a drawn token means for its sequence: the torch engine's rules, kept beside vLLM."""

import asyncio

import pytest

from shared.engine import EngineInfo, Sequence
from shared.engine.sampling.endings import ends_of
from shared.engine.vllm_engine.held import Held
from shared.errors import BadRequest
from shared.messages import Constraint, Finish, Sampling, Stopping
from shared.text import ByteTokenizer
from shared.text.matching import Grammars

EOS = 257
INFO = EngineInfo("m", "f", 64, 16, 1024, 100, 8, frozenset({EOS}))
GRAMMARS = Grammars(ByteTokenizer(), 258)


async def held(stopping: Stopping | None = None, regex: str = "", tokens: int = 4, prompt: int = 4) -> Held:
    sequence = Sequence("k", [65] * tokens, prompt, Sampling(), stopping or Stopping(max_tokens=8))
    first = asyncio.get_running_loop().create_future()
    made = Held(sequence, prefills=False, first=first, ends=ends_of(sequence.stopping, INFO.eos_ids))
    if regex:
        made.matcher = GRAMMARS.matcher(Constraint("regex", regex), [65] * (tokens - prompt))
    return made


async def test_an_end_token_ends_it_and_is_named() -> None:
    one = await held()
    assert one.take(66, INFO) == (None, None)
    assert one.take(EOS, INFO) == (Finish.STOP, EOS)


async def test_a_stop_token_does_too_and_eos_only_where_it_counts() -> None:
    one = await held(Stopping(max_tokens=8, stop_token_ids=[70], ignore_eos=True))
    assert one.take(EOS, INFO) == (None, None)
    assert one.take(70, INFO) == (Finish.STOP, 70)


async def test_the_bound_of_tokens_counts_those_of_earlier_attempts() -> None:
    one = await held(Stopping(max_tokens=4), tokens=6, prompt=4)
    assert one.take(66, INFO) == (None, None)
    assert one.take(66, INFO) == (Finish.LENGTH, None)


async def test_the_context_is_a_bound_too() -> None:
    one = await held(Stopping(max_tokens=1000), tokens=62)
    assert one.take(66, INFO) == (None, None)
    assert one.take(66, INFO) == (Finish.LENGTH, None)


async def test_a_complete_text_ends_with_its_last_token() -> None:
    one = await held(regex="ab")
    assert one.take(97, INFO) == (None, None)
    assert one.take(98, INFO) == (Finish.STOP, None)


async def test_an_end_token_where_the_text_may_end_is_no_part_of_it() -> None:
    one = await held(regex="ab?")
    one.take(97, INFO)
    assert one.take(EOS, INFO) == (Finish.STOP, EOS)


async def test_an_end_token_where_it_may_not_end_says_that_the_language_leads_nowhere() -> None:
    one = await held(regex="abc")
    one.take(97, INFO)
    with pytest.raises(BadRequest, match="regular expression"):
        one.take(EOS, INFO)


async def test_a_token_outside_the_language_is_refused() -> None:
    one = await held(regex="a[0-9]")
    one.take(97, INFO)
    with pytest.raises(BadRequest, match="regular expression"):
        one.take(98, INFO)


async def test_what_was_generated_before_is_followed() -> None:
    one = await held(regex="AAb", tokens=6, prompt=4)
    assert one.take(98, INFO) == (Finish.STOP, None)
