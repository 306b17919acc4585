"""The text that a request must get, worked out without any cluster: the sim engine's pure chain."""

from shared.engine.sim_engine.chain import PRINTABLE, Vocabulary, oracle
from shared.messages import Sampling
from shared.text.tokenizer import ByteTokenizer

_TOKENIZER = ByteTokenizer()
_VOCABULARY = Vocabulary(PRINTABLE, (), 0)  # with `eos_one_in` 0, as in these tests, no text ends by itself


def prompt_tokens(prompt: str) -> list[int]:
    """The tokens of a completion's prompt."""
    return _TOKENIZER.encode(prompt, special=True)


def reference(prompt: str, max_tokens: int, *, seed: int, temperature: float = 1.0, choice: int = 0) -> str:
    """The text of a completion that nothing but its length ends. One character per token."""
    sampling = Sampling(temperature=temperature, seed=seed, choice=choice)
    return _TOKENIZER.decode(oracle(prompt_tokens(prompt), max_tokens, sampling, _VOCABULARY))
