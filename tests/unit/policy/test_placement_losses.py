"""When a view takes a worker for suspect or lost: silence, its own word, a restart."""

from shared.messages import Role, State
from shared.policy.placement import Lost
from tests.unit.policy.builders import status, view_of
from tests.unit.policy.views import BEAT, prefills


def test_a_worker_that_misses_heartbeats_is_suspect_and_then_lost() -> None:
    view = view_of("p1", "p2", "d1")
    for now in (0.5, 1.0, 1.5):
        view.see(status("p2"), now)
        view.see(status("d1"), now)
    assert view.tick(1.5) == []
    assert prefills(view, 1.5) == ["p2", "p1"]
    view.see(status("p2", free=0), 1.5)
    assert view.best("chat", Role.PREFILL, 1.5) is None  # a suspect is not asked while another is merely full
    assert view.tick(2.0) == [Lost("p1", (1, 1), "silent", died=False)]
    assert prefills(view, 2.0) == ["p2"]
    assert view.lost("p1")


def test_a_suspect_is_asked_where_there_is_nobody_else() -> None:
    view = view_of("p1", "d1")
    view.see(status("d1"), 1.5)
    assert prefills(view, 1.5) == ["p1"]
    assert view.best("chat", Role.PREFILL, 1.5) == "p1"


def test_a_worker_taken_for_lost_by_mistake_is_back_with_its_next_status() -> None:
    view = view_of("p1", "d1")
    view.see(status("d1"), 1.5)
    assert view.tick(2.0) == [Lost("p1", (1, 1), "silent", died=False)]
    assert view.see(status("p1"), 2.1) == []
    assert prefills(view, 2.1) == ["p1"]
    assert not view.lost("p1")


def test_nobody_is_lost_while_nobody_is_heard_and_all_have_their_full_time_afterwards() -> None:
    view = view_of("p1", "d1")
    assert view.tick(60.0) == []  # the bus was down, or we were frozen
    lost = []
    for beat in range(4):
        lost += view.see(status("d1"), 60.0 + beat * BEAT)
    assert lost == []
    assert view.see(status("d1"), 60.0 + 4 * BEAT) == [Lost("p1", (1, 1), "silent", died=False)]


def test_a_pulse_is_enough_to_know_that_silence_is_real() -> None:
    view = view_of("p1", "d1")
    lost = []
    for now in (1.0, 2.0, 3.0):
        view.hear(now)
        lost += view.tick(now)
    assert sorted(one.instance for one in lost) == ["d1", "p1"]


def test_a_word_of_stopping_or_failing_is_a_loss_at_once_and_only_once() -> None:
    view = view_of("p1", "p2", "d1")
    assert view.see(status("p1", state=State.STOPPED), 0.1) == [Lost("p1", (1, 1), "stopped", died=False)]
    assert view.see(status("p2", state=State.FAILED), 0.1) == [Lost("p2", (1, 1), "failed")]
    assert view.see(status("p2", state=State.FAILED), 0.2) == []
    assert prefills(view, 0.2) == []


def test_a_restarted_process_has_lost_what_it_held() -> None:
    view = view_of("p1", "d1")
    view.dispatched("p1")
    view.accepted("p1")
    assert view.see(status("p1", epoch=(1, 2), number=1), 0.1) == [Lost("p1", (1, 1), "restarted")]
    assert view.best("chat", Role.PREFILL, 0.1) == "p1"


def test_a_process_that_took_a_new_lease_has_lost_nothing() -> None:
    view = view_of("p1", "d1")
    assert view.see(status("p1", epoch=(2, 1)), 0.1) == []
    assert prefills(view, 0.1) == ["p1"]


def test_a_tick_at_the_next_deadline_always_moves_it() -> None:
    view = view_of("p1", "p2", "d1", now=0.1)
    view.hear(1.3)
    now = 0.1
    for _ in range(20):
        view.tick(now)
        deadline = view.next_deadline()
        if deadline is None:
            break
        assert deadline > now
        now = deadline
        view.hear(now)
    assert view.next_deadline() is None
