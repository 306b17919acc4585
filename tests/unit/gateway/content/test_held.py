"""What is held comes out in order, whole tokens with their logprobs, and nothing of what follows a match."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.content.held import Held
from shared.messages import Finish, Logprobs, TokenLogprob


class Seen:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str, bool]] = []
        self.reason: Finish | None = None

    def text(self, index: int, text: str) -> None:
        self.said.append((index, text, False))

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        assert logprobs is not None
        assert logprobs.token.text == text
        self.said.append((index, text, True))

    def finish(self, reason: Finish) -> None:
        self.reason = reason

    @property
    def whole(self) -> str:
        return "".join(text for _, text, _ in self.said)


def logprobs(text: str) -> Logprobs:
    return Logprobs(0, TokenLogprob(1, -0.5, text, text.encode()), [])


PIECES = st.lists(st.tuples(st.text("ab", max_size=4), st.integers(0, 5)), max_size=12)


@given(PIECES, st.booleans(), st.sampled_from([Finish.STOP, Finish.CONTENT_FILTER]))
def test_exactly_the_freed_characters_come_out_in_order(
    pieces: list[tuple[str, int]],
    tokens: bool,  # noqa: FBT001
    reason: Finish,
) -> None:
    seen, freed, text = Seen(), 0, ""
    held = Held(seen)
    for index, (piece, free) in enumerate(pieces):
        if not piece and not tokens:
            continue
        text += piece
        free = min(free, len(text) - freed)  # noqa: PLW2901
        freed += free
        if tokens:
            held.token(index, piece, logprobs(piece), free)
        else:
            held.text(index, piece, free)
        assert text[:freed].startswith(seen.whole)
        if not tokens:
            assert seen.whole == text[:freed]
    held.end(reason)
    assert seen.reason is reason
    assert seen.whole == (text if reason is Finish.STOP else text[:freed])
    assert [index for index, _, _ in seen.said] == sorted(index for index, _, _ in seen.said)


def test_tokens_without_text_wait_for_the_text_they_belong_to() -> None:
    seen = Seen()
    held = Held(seen)
    held.token(0, "", logprobs(""), 0)
    held.token(1, "", logprobs(""), 0)
    assert seen.said == []
    held.token(2, "ab", logprobs("ab"), 1)
    assert seen.said == []
    held.release(1)
    assert [index for index, _, _ in seen.said] == [0, 1, 2]
    held.token(3, "", logprobs(""), 0)
    held.end(Finish.CONTENT_FILTER)
    assert [index for index, _, _ in seen.said] == [0, 1, 2]


def test_of_a_token_that_is_clean_in_part_only_the_text_is_shown_at_the_end() -> None:
    seen = Seen()
    held = Held(seen)
    held.token(0, "ab bad", logprobs("ab bad"), 3)
    assert seen.said == []
    held.end(Finish.CONTENT_FILTER)
    assert seen.said == [(0, "ab ", False)]
