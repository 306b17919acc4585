"""A small random Llama whose tokens are text, for whole clusters: weights, a tokenizer and a chat template.

The sizes are the least that vLLM's attention on CPU takes. Logits lie far apart, so that no greedy verdict hangs on
the last bit of a sum.
"""

from pathlib import Path
from typing import Final

SIZES: Final = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}
VOCABULARY: Final = 384
CORPUS: Final = (
    "The harbour town of Kessel had three clocks, and no two of them agreed.",
    "A relay is one runner after another, and the baton never stops between them.",
    'It is {"a": [1, 2, 3], "b": {"c": true, "d": null}} that a form looks like.',
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 日本語もあります。",
)
TEMPLATE: Final = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def make_tiny_llama(directory: Path, dtype: str = "float32", *, seed: int = 5) -> Path:
    """Write the model; the same bytes for the same seed. No token ends a text."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        **SIZES, vocab_size=VOCABULARY, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig()
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), clean_up_tokenization_spaces=False)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer():  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Byte-level BPE: every text has tokens and every token is text, some of it half a character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(list(CORPUS), trainer)
    return made
