"""From a model's text to words and calls, while the text grows.

Owns what cannot be told yet: the beginning of a marker, a call that is not complete. However the text is cut, words and
calls come out alike, and text that looked like a call and is none comes out as words. Pure.
"""

import string
from abc import ABC, abstractmethod
from hashlib import sha256
from typing import Final

from services.gateway.tools.call import ArgumentsText, CallText, Known
from services.gateway.tools.said import CallPiece, Said

_MISTRAL_ID: Final = string.ascii_letters + string.digits


def call_id(drawn: bytes) -> str:
    """Make an id in OpenAI's form."""
    return f"call_{drawn[:12].hex()}"


def short_id(drawn: bytes) -> str:
    """Make an id in the only form that Mistral's chat templates take back."""
    return "".join(_MISTRAL_ID[byte % len(_MISTRAL_ID)] for byte in drawn[:9])


class Teller:
    """Collects what is told, and numbers the calls. `eager`: a call is told piece by piece, as it grows.

    The ids of calls follow from `whose` text it is, so that another gateway that reads it names them alike.
    """

    def __init__(self, *, eager: bool, single: bool, short_ids: bool, whose: str) -> None:
        self.complete = 0
        self.ended = False  # nothing more is told: the one call that was wanted is there
        self._eager = eager
        self._single = single
        self._whose = whose
        self._id = short_id if short_ids else call_id
        self._index = -1
        self._space: list[str] = []  # at the end of the words so far: of no interest where a call follows
        self._said: list[Said] = []

    def words(self, text: str) -> None:
        """Tell words."""
        if self.ended:
            return
        told = text.rstrip()
        if told:
            self._tell("".join((*self._space, told)))
            self._space = []
        if len(told) < len(text):
            self._space.append(text[len(told) :])

    def _tell(self, words: str) -> None:
        """Words behind calls stand apart from those before."""
        if self._said and not self._said[-1].calls:
            self._said[-1].text += words
        else:
            self._said.append(Said(words, []))

    def grown(self, call: CallText | ArgumentsText, *, told: bool) -> bool:
        """Tell of a call that has grown; returns whether anything of it is told."""
        if not call.begun or not (self._eager or told):
            return told
        self._piece(call, told=told)
        return True

    def completed(self, call: CallText | ArgumentsText, *, told: bool) -> None:
        """Tell the rest of a complete call."""
        self._piece(call, told=told)
        self.complete += 1
        self.ended = self._single

    def truncated(self, call: CallText | ArgumentsText, *, told: bool) -> bool:
        """Tell what there is of a call that the limit of tokens cut off; returns whether there is anything."""
        if call.begun:
            self._piece(call, told=told)
        return call.begun

    def _piece(self, call: CallText | ArgumentsText, *, told: bool) -> None:
        arguments = call.arguments()
        if not told:
            self._space = []
            self._index += 1
            drawn = sha256(f"{self._whose}:{self._index}".encode()).digest()
            self._grow(CallPiece(self._index, self._id(drawn), call.name, arguments))
        elif arguments:
            self._grow(CallPiece(self._index, arguments=arguments))

    def _grow(self, piece: CallPiece) -> None:
        if not self._said:
            self._said.append(Said("", []))
        calls = self._said[-1].calls
        if piece.name is None and calls:  # the last one there is the one that grows
            calls[-1].arguments += piece.arguments
        else:
            calls.append(piece)

    def take(self) -> list[Said]:
        """Hand over what is to be told now, in order."""
        said, self._said = self._said, []
        return said

    def end(self) -> None:
        """Tell the space that was held back; after calls it means nothing."""
        if self._space and self._index < 0:
            self._tell("".join(self._space))
        self._space = []


class Parser(ABC):
    """What all formats share: the state between calls and the way back from text that is no call."""

    def __init__(self, teller: Teller, known: Known) -> None:
        self.teller = teller
        self._known = known
        self._held = ""  # may be the beginning of a call's marker
        self._raw: list[str] = []  # of the call that is being read: told as words should it be none
        self._call: CallText | ArgumentsText | None = None
        self._told = False  # something of that call
        self._inside = False
        self._after = False  # inside, behind a complete call: what follows may be its end, or the next one

    @abstractmethod
    def look(self, text: str) -> str:
        """Tell words up to where a call may begin, `enter`, and return what follows its marker."""

    @abstractmethod
    def step(self, character: str) -> bool:
        """Take one character inside a call; false when it cannot stand there."""

    def feed(self, text: str) -> list[Said]:
        """Take the next stretch of text."""
        while text and not self.teller.ended:
            if self._inside:
                text = self._read(text)
            else:
                held, self._held = self._held, ""
                text = self.look(held + text)
        return self.teller.take()

    def finish(self, *, cut: bool) -> list[Said]:
        """Take the text's end. `cut`: the limit of tokens came before the model's own end."""
        if self._inside:
            if cut and self._call is not None:
                self._told = self.teller.truncated(self._call, told=self._told)
            self._give_up("")  # what it returns came behind a complete call: a part of the call's end
        self.teller.words(self._held)
        self._held = ""
        self.teller.end()
        return self.teller.take()

    def _read(self, text: str) -> str:
        """Take text inside a call; returns what follows it."""
        place, end = 0, len(text)
        while place < end:
            if self._call is not None and (after := self._call.run(text, place)) > place:
                self._raw.append(text[place:after])
                place = after
                continue
            if not self.step(text[place]):
                return self._give_up(text[place:])
            place += 1
            if not self._inside or self.teller.ended:
                return text[place:]
        if self._call is not None:
            self._told = self.teller.grown(self._call, told=self._told)
        return ""

    def enter(self, marker: str) -> None:
        """Begin to read what may be a call."""
        self._inside, self._after = True, False
        self._raw = [marker]

    def leave(self) -> None:
        """Go back to words."""
        self._inside, self._after, self._call, self._told = False, False, None, False
        self._raw.clear()

    def begin(self, call: CallText | ArgumentsText, character: str) -> bool:
        """Begin the call itself with its first character."""
        self._call, self._told, self._after = call, False, False
        return self.in_call(character)

    def skip(self, character: str) -> bool:
        """Take a character that says nothing by itself."""
        self._raw.append(character)
        return True

    def in_call(self, character: str) -> bool:
        """Take a character of the call itself; false when it cannot stand there."""
        if self._call is None or not self._call.feed(character):
            return False
        self._raw.append(character)
        if self._call.done:
            self.teller.completed(self._call, told=self._told)
            self._call, self._told, self._after = None, False, True
            self._raw.clear()
        return True

    def _give_up(self, rest: str) -> str:
        """Go back to words: what was not told of the call is one, and `rest` is read anew."""
        raw = "".join(self._raw)
        told = self._call is not None and self.teller.grown(self._call, told=self._told)
        after = self._after
        self.leave()
        if after:
            return raw + rest
        self.teller.words("" if told else raw)
        return rest
