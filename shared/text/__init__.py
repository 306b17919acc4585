"""Text and tokens: tokenizers with exact bytes, and the text of a stream as it grows. Knows no service and no wire."""

from shared.text.clock import ClockText
from shared.text.opening import open_text, open_tokenizer
from shared.text.stream import TextStream
from shared.text.tokenizer import ByteTokenizer, HubTokenizer, Tokenizer

__all__ = ["ByteTokenizer", "ClockText", "HubTokenizer", "TextStream", "Tokenizer", "open_text", "open_tokenizer"]
