"""Stop strings are found where a look at the whole text finds them, however it is cut and whoever searched before."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messages import Stopping
from shared.text import ByteTokenizer, TextStream
from shared.text.stops import KEPT_LENGTH, MOST_HARMLESS, Stops, stops_of

PIECES = st.lists(st.text("abc", min_size=1, max_size=6), max_size=8)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


def naive(pieces: list[str], stop: list[str], allowed_from: int) -> tuple[int, str]:
    """The number of the piece that completes a string, and that string: the first to be complete, then the longest."""
    text = ""
    for number, piece in enumerate(pieces):
        for character in piece:
            text += character
            complete = [one for one in stop if text.endswith(one)]
            if complete and number >= allowed_from:
                return number, max(complete, key=len)
    return -1, ""


@given(PIECES, STOPS, st.integers(0, 4))
def test_the_search_finds_what_a_look_at_the_whole_text_finds(
    pieces: list[str], stop: list[str], allowed_from: int
) -> None:
    stops = Stops(tuple(stop))
    place, text, found = stops.start, "", (-1, "")
    for number, piece in enumerate(pieces):
        seen = stops.feed(place, piece, allowed=number >= allowed_from)
        if seen.stop:
            assert (text + piece[: seen.end]).endswith(seen.stop)
            found = number, seen.stop
            break
        text, place = text + piece, seen.place
        assert place == tuple(max(length for length in range(len(one)) if text.endswith(one[:length])) for one in stop)
    assert found == naive(pieces, stop, allowed_from)


@given(PIECES, PIECES, STOPS, st.integers(0, 8))
def test_what_one_stream_learnt_of_pieces_is_true_for_the_next(
    before: list[str], pieces: list[str], stop: list[str], allowed_from: int
) -> None:
    stops = Stops(tuple(stop))
    for texts in (before, pieces):
        place = stops.start
        for number, piece in enumerate(texts):
            place = stops.feed(place, piece, allowed=number >= allowed_from).place
    for piece in stops.harmless:
        assert not any(one in piece for one in stop)
        assert not any(piece.endswith(one[:length]) for one in stop for length in range(1, len(one)))


@given(st.lists(st.sampled_from(list(b"abc \n")), max_size=30), STOPS, st.integers(0, 12))
def test_a_stream_stops_where_its_fewest_tokens_allow_it(ids: list[int], stop: list[str], fewest: int) -> None:
    stream = TextStream(ByteTokenizer(), Stopping(max_tokens=99, stop=stop, min_tokens=fewest), [])
    shown, ended = "", -1
    for number, token in enumerate(ids):
        shown += stream.push(token)
        if stream.matched is not None:
            ended = number
            break
    number, found = naive([chr(token) for token in ids], stop, fewest - 1)
    assert (ended, stream.matched or "") == (number, found)
    text = bytes(ids).decode()
    assert shown + stream.flush() == (text if not found else text[: number + 1].removesuffix(found))


def test_nothing_to_look_for_is_no_search() -> None:
    assert stops_of([]) is None
    assert stops_of(["", ""]) is None


def test_the_same_strings_are_searched_for_by_one_search_unless_they_are_long() -> None:
    assert stops_of(["x", "y", "x"]) is stops_of(["x", "", "y"])
    long = "x" * (KEPT_LENGTH + 1)
    assert stops_of([long]) is not stops_of([long])


def test_what_is_learnt_is_bounded() -> None:
    stops = Stops(("###",))
    for number in range(MOST_HARMLESS + 10):
        stops.feed(stops.start, f" {number}", allowed=True)
    assert len(stops.harmless) == MOST_HARMLESS
    assert stops.feed(stops.start, " x###", allowed=True).stop == "###"
