"""Real tokenizers of both families, trained in a moment on a text with every kind of character."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. User: hi\nAssistant: hello there, how are you?\n",
    "日本語のテキスト、中文文本、한국어 텍스트。 Ünïcödé, naïve café; e\u0301 a\u0308 o\u0302\u0323",
    "👨\u200d👩\u200d👧\u200d👦 👩🏽\u200d🚀 🏳️\u200d🌈 ❤️ 🇫🇷 हिन्दी العربية ไทย",
    "    indented\tcode = {'a': 1}\r\n\n\n",
] * 4
SPECIAL = ["<bos>", "<eos>", "<turn>"]


def byte_level(directory: Path) -> Path:
    """As Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _saved(tokenizer, directory / "byte-level.json")


def sentencepiece(directory: Path) -> Path:
    """As Gemma has it: spaces spelled U+2581, and single bytes for what the vocabulary lacks."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "\u2581")
    # emoji and Thai stay out of the vocabulary, so that they are made of bytes
    trainer = trainers.BpeTrainer(vocab_size=300, limit_alphabet=120)
    learner.train_from_iterator([line for line in CORPUS if "👨" not in line], trainer)
    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    lone = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, "<unk>", *lone, *learned]))}
    merges = [
        (token[:cut], token[cut:])
        for token in learned
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return _saved(tokenizer, directory / "sentencepiece.json")


def _saved(tokenizer: Tokenizer, path: Path) -> Path:
    tokenizer.add_tokens([AddedToken("<tool é>", normalized=False)])  # added, shown, and no spelling of bytes
    tokenizer.save(str(path))
    return path
