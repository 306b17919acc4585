"""How rules see a text: without what readers do not see or do not mind.

Compatibility forms, letter case, invisible characters and runs of white space are evened out, character by character,
so that a stream can be folded as it comes and every folded character knows where it stands in the original. Two texts
that are equal after NFKC are equal after folding, which leaves letters and their marks apart (NFKD) instead of joining
them. Pure.
"""

import unicodedata
from typing import Final

SPACE: Final = " "
MOST: Final = 32_768
"""Entries of a table: all characters there are would take 170 MB, of every moderator."""
_HANGUL: Final = range(0xAC00, 0xD7A4)  # syllables stay whole: in pieces, one would be the beginning of another
_UNSEEN: Final = (
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),  # Mongolian separators
    (0x2800, 0x2800),  # empty Braille
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),  # tags and more selectors
)
_OVERLAYS: Final = ((0x0334, 0x0338), (0x20D0, 0x20FF))  # strike letters through or enclose them; make no letter
_ACCENTS: Final = ((0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0xFE20, 0xFE2F))
FIRST_MARK: Final = "\u0300"
FIRST_UNSPACED: Final = "\u0e00"
_UNSPACED: Final = (  # scripts that put no spaces between words
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0xA4CF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def _among(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def in_word(character: str) -> bool:
    """Whether a word goes on here, where words have ends that can be seen."""
    if character.isalnum() or character == "_":
        return character < FIRST_UNSPACED or not _among(ord(character), _UNSPACED)
    return is_mark(character)


def is_mark(character: str) -> bool:
    """Whether a character changes the letter before it."""
    return character > "\u02ff" and unicodedata.category(character)[0] == "M"


def settled(text: str) -> int:
    """Count the characters that stay where they are: more marks may still come between those at the end."""
    end = len(text)
    while end and text[end - 1] >= FIRST_MARK and unicodedata.combining(text[end - 1]):
        end -= 1
    return end


def ordered(text: str, start: int = 0) -> str:
    """Put the marks of each letter into their canonical order, from a place on: they may be written in any."""
    if max(text[start:], default="") < FIRST_MARK:
        return text
    classes = [unicodedata.combining(character) for character in text]
    place, size = start, len(text)
    made = [text[:start]]
    while place < size:
        end = place + 1
        if classes[place]:
            while end < size and classes[end]:
                end += 1
        made.append("".join(sorted(text[place:end], key=unicodedata.combining)))
        place = end
    return "".join(made)


class Folder(dict[int, str]):
    """Folds by table; entries are made as they are met, and all dropped when there are more than any alphabet needs."""

    def __init__(self, *, ignore_case: bool = True, ignore_accents: bool = False) -> None:
        super().__init__()
        self._case = ignore_case
        self._accents = ignore_accents

    def __missing__(self, code: int) -> str:
        if len(self) >= MOST:
            self.clear()
        made = self[code] = self._made(chr(code))
        return made

    def _made(self, character: str) -> str:
        if ord(character) in _HANGUL:
            return character
        apart = unicodedata.normalize("NFKD", character)
        if self._case:
            apart = unicodedata.normalize("NFKD", apart.casefold())
        return "".join(self._one(piece) for piece in apart)

    def _one(self, character: str) -> str:
        code, category = ord(character), unicodedata.category(character)
        if character.isspace() or category[0] == "Z":
            return SPACE
        if category in ("Cf", "Cc") or _among(code, _UNSEEN) or _among(code, _OVERLAYS):
            return ""
        if category == "Cs":
            return "\ufffd"
        return "" if self._accents and _among(code, _ACCENTS) else character

    def fold(self, text: str, *, after_space: bool = False) -> tuple[str, list[int] | None]:
        """Fold a text: what it becomes, and for each folded character the index of the one it comes from.

        None instead of the indexes where all stay in place. `after_space`: a space stands before the text.
        """
        if text.isascii() and text.isprintable() and "  " not in text and not (after_space and text[:1] == SPACE):
            return text.lower() if self._case else text, None
        folded: list[str] = []
        starts: list[int] = []
        for index, character in enumerate(text):
            piece = self[ord(character)]
            if after_space and piece[:1] == SPACE:
                piece = piece[1:]
            if piece:
                folded.append(piece)
                starts.extend([index] * len(piece))
                after_space = piece[-1] == SPACE
        return ordered("".join(folded)), starts

    def word(self, text: str) -> str:
        """Fold a word or a phrase of a rule."""
        return self.fold(text)[0].strip(SPACE)
