"""The channel between leader and follower."""

import socket
from collections.abc import Iterator

import pytest

from shared.engine.torch_engine.ranks import line as line_module
from shared.engine.torch_engine.ranks.line import Line, LineEnded
from shared.engine.torch_engine.ranks.notes import MAX_NOTE_BYTES
from shared.errors import EngineFailed


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    one, other = socket.socketpair()
    made = Line(one, "rank 1"), Line(other, "the leader")
    yield made
    for end in made:
        end.close()


def test_notes_arrive_whole_and_in_order(ends: tuple[Line, Line]) -> None:
    for data in (b"one", b"", b"x" * 100_000):
        ends[0].send(data)
    assert [ends[1].receive(5.0) for _ in range(3)] == [b"one", b"", b"x" * 100_000]


def test_the_end_of_a_process_is_heard_at_once_by_who_waits(ends: tuple[Line, Line]) -> None:
    ends[0].close()
    with pytest.raises(LineEnded, match="the leader has ended"):
        ends[1].receive(None)
    with pytest.raises(LineEnded, match="the leader has ended"):
        ends[1].send(b"more")


def test_a_wait_has_a_limit(ends: tuple[Line, Line]) -> None:
    with pytest.raises(EngineFailed, match="rank 1 has not answered in time"):
        ends[0].receive(0.01)


def test_who_does_not_read_is_not_written_to_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SEND_S", 0.05)
    one, other = socket.socketpair()
    line = Line(one, "rank 1")
    with pytest.raises(EngineFailed, match=r"rank 1 has not read for 0\.05 s"):
        line.send(b"x" * (8 << 20))
    line.close()
    other.close()


def test_no_note_is_longer_than_any_may_be(ends: tuple[Line, Line]) -> None:
    with pytest.raises(EngineFailed, match="longer than any may be"):
        ends[0].send(bytes(MAX_NOTE_BYTES + 1))
    ends[0]._socket.sendall((MAX_NOTE_BYTES + 1).to_bytes(4, "little"))
    with pytest.raises(EngineFailed, match="none is so long"):
        ends[1].receive(5.0)
