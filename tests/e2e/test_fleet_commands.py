"""`baton scale`, `upgrade` and `explain` against a whole cluster of processes, on the sim engine."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One prefill, one decode, one standby; the monitor may ask for more."""
    made = LocalCluster(tmp_path_factory.mktemp("cluster"))
    yield made.start()
    made.close()


def _group(cluster: LocalCluster, name: str = "main") -> dict[str, Any]:
    groups = cluster.status()["scenarios"][0]["groups"]
    found: dict[str, Any] = next((group for group in groups if group["name"] == name), {})
    return found


def _order(cluster: LocalCluster, *words: str) -> str:
    done = cluster.baton(*words)
    assert done.returncode == 0, done.stderr + cluster.output
    return done.stdout


def test_a_decode_more_comes_from_standby_and_another_standby_is_started(cluster: LocalCluster) -> None:
    cluster.until(lambda: cluster.instances("standby"), "the standby is ready")
    assert "2" in _order(cluster, "scale", "chat", "--decode", "2", "--dry-run")
    assert _group(cluster)["decodes"] == 1, "a dry run changes nothing"
    assert "main from 1:1 to 1:2" in _order(cluster, "scale", "chat", "--decode", "2")
    cluster.until(lambda: len(_group(cluster)["decode"]) == 2 and not _group(cluster)["joining"], "it has joined")
    assert cluster.chat("hello")["usage"]["completion_tokens"] == 8
    assert "2 of 2 decodes" in _order(cluster, "explain", "chat")


def test_an_order_for_what_is_not_there_says_so(cluster: LocalCluster) -> None:
    done = cluster.baton("scale", "code", "--decode", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no scenario code; there are: chat" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = cluster.baton("upgrade", "chat", "--model", "./nowhere")
    assert done.returncode == 1
    assert "There is no model at /" in done.stderr
    assert cluster.baton("scale", "chat", "--decode", "none").returncode == 2


@pytest.mark.long
def test_a_command_that_waits_returns_when_all_is_as_ordered(cluster: LocalCluster) -> None:
    for _ in range(2):
        assert "as ordered" in _order(cluster, "scale", "chat", "--decode", "3", "--wait")
        group = _group(cluster)
        assert (len(group["decode"]), group["decodes"], group["joining"], group["phase"]) == (3, 3, [], "open")
    cluster.until(lambda: cluster.instances("standby"), "`baton up` has started another standby")
    assert "as ordered" in _order(cluster, "scale", "chat", "--decode", "1", "--wait")
    assert len(_group(cluster)["decode"]) == 1


@pytest.mark.long
def test_more_than_stands_by_is_started_and_comes_down_again(cluster: LocalCluster) -> None:
    _order(cluster, "scale", "chat", "--groups", "2", "--wait")
    group = _group(cluster, "main-2")
    assert (len(group["prefill"]), len(group["decode"]), group["phase"]) == (1, group["decodes"], "open")
    _order(cluster, "scale", "chat", "--groups", "1", "--wait")
    assert _group(cluster, "main-2") == {}
    assert cluster.chat("hello")["usage"]["completion_tokens"] == 8


@pytest.mark.long
def test_an_upgrade_and_its_way_back_fail_no_request(cluster: LocalCluster) -> None:
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(cluster.chat("hello", 16)["usage"]["completion_tokens"])

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        told = _order(cluster, "upgrade", "chat", "--option", "decode_step_ms=3", "--trial", "2", "--wait")
        assert "as ordered" in told
        assert cluster.status()["scenarios"][0]["target"] == 1
        assert {one["revision"] for one in cluster.instances("decode")} == {1}
        _order(cluster, "upgrade", "chat", "--back", "--trial", "0", "--wait")
        assert {one["revision"] for one in cluster.instances("decode")} == {0}
    finally:
        over.set()
        asker.join()
    assert set(answers) == {16}, json.dumps(answers)


@pytest.mark.long
def test_an_option_that_no_engine_knows_is_taken_back(cluster: LocalCluster) -> None:
    done = cluster.baton("upgrade", "chat", "--option", "nonsense=1", "--trial", "1", "--wait", "--timeout", "100")
    assert done.returncode == 1
    assert "did not last" in done.stderr
    assert "engine_options.nonsense is no key" in done.stderr
    assert cluster.chat("hello")["usage"]["completion_tokens"] == 8
