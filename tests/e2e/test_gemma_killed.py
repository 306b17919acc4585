"""The real Gemma 3 270M under `baton up`: decode is killed while a greedy text streams, and the text is the same."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.local_cluster import LocalCluster

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(900)]

NEW = 48
PROMPT = "The harbour town of Kessel had three clocks, and no two of them agreed. " * 3
HANGS_S = 240.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("gemma"), "--engine", "torch", "--model", "gemma-3-270m")
    yield made.start()
    made.close()


@dataclass(frozen=True)
class Streamed:
    """A whole answer, as it came."""

    pieces: list[str]
    finish: str | None
    tokens: int


def streamed(cluster: LocalCluster, kill_at: int = 0, victim: int = 0) -> Streamed:
    """Stream the greedy text; once so many pieces have come, kill the process."""
    address = urlsplit(cluster.url)
    asked: dict[str, Any] = {"model": "chat", "prompt": PROMPT, "max_tokens": NEW, "temperature": 0.0, "stream": True}
    asked |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=HANGS_S)
    connection.request("POST", "/v1/completions", json.dumps(asked), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    pieces: list[str] = []
    finish, tokens = None, 0
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        assert "error" not in event, event
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        for choice in event["choices"]:
            pieces.append(choice["text"])
            finish = choice["finish_reason"] or finish
        if victim and len(pieces) >= kill_at:
            os.kill(victim, signal.SIGKILL)
            victim = 0
    connection.close()
    return Streamed(pieces, finish, tokens)


@pytest.fixture(scope="module")
def undisturbed(cluster: LocalCluster) -> Streamed:
    whole = streamed(cluster)
    assert (whole.finish, whole.tokens) == ("length", NEW)
    return whole


@pytest.mark.parametrize("kill_at", [1, 12, 40])
def test_a_decode_killed_in_the_middle_changes_nothing_about_a_greedy_text(
    cluster: LocalCluster, undisturbed: Streamed, kill_at: int
) -> None:
    cluster.until(lambda: cluster.instances("standby") and cluster.instances("decode"), "all are ready", HANGS_S)
    (decode,) = cluster.instances("decode")
    continued = streamed(cluster, kill_at, decode["pid"])
    assert "".join(continued.pieces) == "".join(undisturbed.pieces)
    assert (continued.finish, continued.tokens) == ("length", NEW)
    cluster.until(lambda: f"{decode['id']} was killed by SIGKILL" in cluster.output, "the killed one is missed")
