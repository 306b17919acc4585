"""Pieces are a token's exact bytes, for both ways in which vocabularies spell them."""

import json
from pathlib import Path

import pytest

from shared.errors import BadRequest, ConfigError
from shared.text import ByteTokenizer, HubTokenizer
from tests.unit.text.vocabularies import CORPUS, byte_level, sentencepiece


@pytest.fixture(params=[byte_level, sentencepiece])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> HubTokenizer:
    return HubTokenizer(request.param(tmp_path))


def test_the_pieces_of_a_text_are_its_bytes(tokenizer: HubTokenizer) -> None:
    for text in CORPUS[:4]:
        ids = tokenizer.encode(text, special=False)
        assert b"".join(tokenizer.piece(token)[1] for token in ids) == text.encode()


def test_a_piece_that_is_no_whole_character_has_exact_bytes_and_readable_text(tokenizer: HubTokenizer) -> None:
    pieces = [tokenizer.piece(token) for token in tokenizer.encode("☃", special=False)]
    assert b"".join(raw for _, raw in pieces) == "☃".encode()
    assert len(pieces) > 1
    assert all("\ufffd" in text for text, _ in pieces)


def test_special_tokens_have_a_name_and_are_not_shown(tokenizer: HubTokenizer) -> None:
    (turn,) = tokenizer.encode("<turn>", special=False)
    assert tokenizer.piece(turn) == ("<turn>", b"<turn>")
    assert tokenizer.decode([turn]) == ""


def test_added_tokens_that_are_not_special_are_shown_as_they_are(tokenizer: HubTokenizer) -> None:
    (tool,) = tokenizer.encode("<tool é>", special=False)
    assert tokenizer.decode([tool]) == "<tool é>"


def test_ids_outside_the_vocabulary_are_empty(tokenizer: HubTokenizer) -> None:
    for one in (tokenizer, ByteTokenizer()):
        for token in (one.vocabulary, 10**9, -1):
            assert one.piece(token) == ("", b"")
            assert one.decode([token]) == ""


def test_text_with_a_lone_surrogate_is_a_bad_request(tokenizer: HubTokenizer) -> None:
    for one in (tokenizer, ByteTokenizer()):
        with pytest.raises(BadRequest):
            one.encode("a\ud800b", special=True)


def test_the_byte_tokenizer_has_a_token_per_byte_and_two_special_ones() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé", special=False) == [97, 0xC3, 0xA9]
    assert tokenizer.encode("a", special=True) == [ByteTokenizer.BOS, 97]
    assert tokenizer.encode("<bos>a", special=False) == [ByteTokenizer.BOS, 97]
    assert tokenizer.decode([ByteTokenizer.BOS, 97, ByteTokenizer.EOS]) == "a"
    assert tokenizer.piece(ByteTokenizer.EOS) == ("<eos>", b"<eos>")


def test_a_space_before_the_first_word_is_kept_because_tokens_continue_a_prompt(tmp_path: Path) -> None:
    path = sentencepiece(tmp_path)
    content = json.loads(path.read_text())
    content["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})  # as Llama 2 has it
    path.write_text(json.dumps(content))
    tokenizer = HubTokenizer(path)
    assert tokenizer.decode(tokenizer.encode(" fox", special=False)) == " fox"


def test_a_file_that_is_no_tokenizer_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content in ("", "{}", '{"version": "1.0"}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match="no tokenizer that can be read"):
            HubTokenizer(path)
    with pytest.raises(ConfigError):
        HubTokenizer(tmp_path / "absent.json")


def test_a_tokenizer_without_exact_bytes_is_a_configuration_error(tmp_path: Path) -> None:
    path = byte_level(tmp_path)
    content = json.loads(path.read_text())
    content["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="WordPiece"):
        HubTokenizer(path)
