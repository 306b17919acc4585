"""The model "small": four layers, 256 wide, and a vocabulary of a real model's size, so that what grows with it shows.

Random weights over a byte-level BPE of 32,000 tokens that was trained on the sources of Python's standard library,
which every machine has. Any sequence of its tokens is text.
"""

import sysconfig
from pathlib import Path
from typing import Any, Final

from tests.vllm.tiny_llama import SIZES, TEMPLATE

VOCABULARY: Final = 32_000
SOURCES: Final = ("*.py", "*/*.py")


def make_small_llama(directory: Path, dtype: str, *, seed: int = 5) -> Path:
    """Write the model, the same for the same seed. No token ends a text."""
    import torch  # noqa: PLC0415  seconds; the client's process needs none of it
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), clean_up_tokenization_spaces=False)
    config = LlamaConfig(
        **SIZES, vocab_size=VOCABULARY, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig()
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer() -> Any:  # noqa: ANN401  tokenizers has no types
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator((path.read_text(errors="replace") for path in _sources()), trainer)
    if made.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the sources make {made.get_vocab_size()} tokens, not {VOCABULARY}")
    return made


def _sources() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path for pattern in SOURCES for path in root.glob(pattern) if path.parent.name != "site-packages")
