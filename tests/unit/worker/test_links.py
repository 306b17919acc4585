"""Which ways a prefill verifies, and when again: compared whole, check by check."""

from shared.messages import Epoch, Link, Role, State, Status
from shared.worker.links import AT_ONCE, LONGEST_S, Check, LinkBook

ONE: Epoch = (1, 1)
TWO: Epoch = (1, 2)
READY, STARTING = State.READY, State.STARTING


def said(decode: str, epoch: Epoch = ONE, state: State = READY, role: Role = Role.DECODE) -> Status:
    return Status(decode, epoch, role, state, "chat", "main")


def book_of(*decodes: str) -> LinkBook:
    """A book of decodes that are ready and in the map."""
    book = LinkBook()
    book.members(dict.fromkeys(decodes, ONE), 0.0)
    for decode in decodes:
        book.hear(said(decode), 0.0)
    return book


def verified(book: LinkBook, now: float = 0.0) -> None:
    for check in book.due(now):
        book.passed(check, check.epoch)


def test_a_decode_of_the_map_is_checked_once_it_is_ready_and_then_no_more() -> None:
    book = LinkBook()
    book.members({"d1": ONE}, 0.0)
    assert book.due(0.0) == []
    assert book.links() == [Link("d1", ONE, problem="it has not said yet that it is ready")]
    book.hear(said("d1", state=STARTING), 1.0)
    assert (book.due(1.0), book.next()) == ([], None)
    book.hear(said("d1"), 2.0)
    assert book.due(2.0) == [Check("d1", ONE, 1)]
    assert book.due(2.0) == []
    book.passed(Check("d1", ONE, 1), ONE)
    assert book.links() == [Link("d1", ONE, verified=True)]
    assert (book.due(99.0), book.next(), book.verified) == ([], None, 1)


def test_a_decode_that_was_ready_before_the_map_named_it_is_checked_at_once() -> None:
    book = LinkBook()
    book.hear(said("d1"), 0.0)
    book.members({"d1": ONE}, 1.0)
    assert book.due(1.0) == [Check("d1", ONE, 1)]


def test_a_failed_check_is_repeated_later_and_later() -> None:
    book, now, waits = book_of("d1"), 0.0, []
    for _ in range(8):
        [check] = book.due(now)
        book.failed(check, "no answer", now)
        assert book.due(now) == []
        due = book.next()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_S, LONGEST_S, LONGEST_S]
    assert book.links() == [Link("d1", ONE, problem="no answer")]
    verified(book, now)
    assert book.links() == [Link("d1", ONE, verified=True)]


def test_a_new_epoch_is_verified_anew_at_once_whoever_tells_of_it() -> None:
    for tell in ("map", "status"):
        book = book_of("d1")
        verified(book)
        if tell == "map":
            book.members({"d1": TWO}, 1.0)
        book.hear(said("d1", TWO), 1.0)
        assert book.links() == [Link("d1", TWO)]
        assert book.due(1.0) == [Check("d1", TWO, 2)]


def test_the_word_of_an_older_epoch_changes_nothing() -> None:
    book = book_of("d1")
    book.hear(said("d1", TWO), 0.0)
    [check] = book.due(0.0)
    book.hear(said("d1", ONE, STARTING), 1.0)
    book.members({"d1": ONE}, 1.0)  # the map is behind
    book.passed(check, TWO)
    assert book.links() == [Link("d1", TWO, verified=True)]


def test_a_check_that_ends_after_the_decode_was_replaced_says_nothing() -> None:
    book = book_of("d1")
    [old] = book.due(0.0)
    book.hear(said("d1", TWO), 1.0)
    book.passed(old, ONE)
    assert book.links() == [Link("d1", TWO)]
    [new] = book.due(1.0)
    book.failed(old, "too late", 2.0)
    book.passed(new, TWO)
    assert book.links() == [Link("d1", TWO, verified=True)]


def test_becoming_ready_ends_the_wait_after_failures() -> None:
    book = book_of("d1")
    for now in (0.0, 1.0, 3.0):
        [check] = book.due(now)
        book.failed(check, "nobody listens", now)
    book.hear(said("d1", state=State.DRAINING), 4.0)
    assert book.due(99.0) == []
    book.hear(said("d1"), 5.0)
    assert book.due(5.0) == [Check("d1", ONE, 4)]


def test_only_so_many_checks_run_at_once_and_the_longest_waiting_come_first() -> None:
    names = [f"d{number}" for number in range(AT_ONCE + 2)]
    book = book_of(*names)
    first = book.due(0.0)
    assert [check.decode for check in first] == names[:AT_ONCE]
    assert (book.due(9.0), book.next()) == ([], None)
    book.failed(first[0], "no", 0.0)
    assert [check.decode for check in book.due(9.0)] == [names[AT_ONCE]]
    book.passed(first[1], ONE)
    assert [check.decode for check in book.due(9.0)] == [names[AT_ONCE + 1]]
    book.passed(first[2], ONE)
    assert [check.decode for check in book.due(9.0)] == [names[0]]


def test_a_push_that_failed_has_the_way_checked_but_it_counts_as_good_until_the_check_says_otherwise() -> None:
    book = book_of("d1")
    verified(book)
    book.doubt("d1", 5.0)
    [check] = book.due(5.0)
    book.failed(check, "full", 5.0, refused=True)
    assert book.links() == [Link("d1", ONE, verified=True)]
    [check] = book.due(6.0)
    book.failed(check, "no answer", 6.0)
    assert book.links() == [Link("d1", ONE, problem="no answer")]


def test_pushes_of_requests_are_counted_and_verify_as_checks_do() -> None:
    book = book_of("d1")
    [check] = book.due(0.0)
    book.failed(check, "full", 0.0, refused=True)
    book.pushed("d1", ONE, 4096, 0.002)
    book.pushed("d1", ONE, 1024, 0.001)
    book.pushed("another", ONE, 1, 1.0)
    assert book.links() == [Link("d1", ONE, verified=True, pushes=2, bytes=5120, push_us=3000)]
    book.hear(said("d1", TWO), 1.0)
    assert book.links() == [Link("d1", TWO, pushes=2, bytes=5120, push_us=3000)]


def test_who_left_the_group_is_forgotten() -> None:
    book = book_of("d1", "d2")
    verified(book)
    book.changed = False
    book.members({"d2": ONE}, 1.0)
    assert book.changed
    assert [link.decode for link in book.links()] == ["d2"]
    assert len(book) == 1


def test_news_is_what_others_should_hear_and_nothing_else() -> None:
    book = book_of("d1")
    book.changed = False
    book.members({"d1": ONE}, 1.0)
    book.hear(said("d1"), 1.0)
    book.hear(said("p1", role=Role.PREFILL), 1.0)
    [check] = book.due(1.0)
    assert not book.changed
    book.failed(check, "no answer", 1.0)
    assert book.changed
    book.changed = False
    [check] = book.due(2.0)
    book.failed(check, "no answer", 2.0)
    assert not book.changed
