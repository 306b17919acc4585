"""Chooses the tokenizer of a model, and the kind of text that its streams show."""

from shared.messages import Stopping
from shared.models.spec import ModelSpec
from shared.text.clock import ClockText
from shared.text.stream import TextStream
from shared.text.tokenizer import ByteTokenizer, HubTokenizer, Tokenizer


def open_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The model's tokenizer. Takes a second for a large vocabulary: not for the event loop. Raises ConfigError."""
    if spec.tokenizer_path is None:
        return ByteTokenizer()
    return HubTokenizer(spec.tokenizer_path)


def open_text(
    spec: ModelSpec, tokenizer: Tokenizer, stopping: Stopping, generated: list[int]
) -> TextStream | ClockText:
    """The text of one stream that has `generated` already."""
    return ClockText() if spec.clock else TextStream(tokenizer, stopping, generated)
