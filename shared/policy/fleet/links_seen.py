"""Which prefill can push to which decode, as prefills said last. Owns nothing but their words."""

from dataclasses import dataclass
from typing import Final

from shared.messages import Epoch, Links
from shared.policy.recent import Recent

REMEMBERED: Final = 65_536
"""Prefills whose last word is kept."""


@dataclass(frozen=True, slots=True)
class _Word:
    epoch: Epoch  # of the prefill
    decodes: dict[str, tuple[Epoch, bool, bool]]  # epoch, verified, tried in vain


class LinksHeard:
    """The last word of each prefill. An epoch that is not the one meant counts as no word."""

    def __init__(self) -> None:
        self._words: Recent[str, _Word] = Recent(REMEMBERED)

    def see(self, links: Links) -> bool:
        """Take links in; whether they say anything new."""
        last = self._words.get(links.instance)
        if last is not None and links.epoch < last.epoch:
            return False
        decodes = {one.decode: (one.epoch, one.verified, bool(one.problem)) for one in links.links}
        word = _Word(links.epoch, decodes)
        self._words.put(links.instance, word)
        return word != last

    def speaks(self, prefill: str, epoch: Epoch) -> bool:
        """Whether this life of the prefill has said anything."""
        word = self._words.get(prefill)
        return word is not None and word.epoch == epoch

    def verified(self, prefill: str, epoch: Epoch, decode: str, its_epoch: Epoch) -> bool:
        """Whether a push between these lives of theirs has come through."""
        link = self._link(prefill, epoch, decode)
        return link is not None and link[0] == its_epoch and link[1]

    def failed(self, prefill: str, epoch: Epoch, decode: str, its_epoch: Epoch) -> bool:
        """Whether a push between them was tried in vain."""
        link = self._link(prefill, epoch, decode)
        return link is not None and link[0] == its_epoch and not link[1] and link[2]

    def _link(self, prefill: str, epoch: Epoch, decode: str) -> tuple[Epoch, bool, bool] | None:
        word = self._words.get(prefill)
        return None if word is None or word.epoch != epoch else word.decodes.get(decode)
