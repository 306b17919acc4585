"""A cluster whose workers split the model over two ranks: the same text, and a rank that dies costs nobody his."""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.local_cluster import LocalCluster, gone
from tests.e2e.test_forms import tokenizer

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
NEW = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("tiny")
    size = tokenizer(directory)
    make("qwen 3", directory, vocab_size=size, max_position_embeddings=1024)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@contextmanager
def cluster(folder: Path, model: Path, ranks: int, standby: int) -> Iterator[LocalCluster]:
    folder.mkdir()
    config = folder / "baton.toml"
    config.write_text(
        f'[scenario.chat]\nmodel = "{model}"\nengine = "torch"\n'
        f"[scenario.chat.engine_options]\ntensor_parallel = {ranks}\nmax_model_len = 1024\n"
    )
    made = LocalCluster(folder, "--standby", str(standby), "--engine", "torch", "--config", str(config))
    try:
        yield made.start()
    finally:
        processes = made.processes()
        made.signal(signal.SIGTERM)
        made.ended()
        made.close()
        assert gone(processes)


def text(made: LocalCluster, kill: int = 0) -> str:
    """A greedy text; a process is killed in the middle of it."""
    asked: dict[str, Any] = {
        "model": "chat",
        "prompt": "hello there",
        "max_tokens": NEW,
        "temperature": 0,
        "stream": True,
    }
    request = urllib.request.Request(  # noqa: S310  our own loopback
        f"{made.url}/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    pieces: list[str] = []
    finish = None
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            assert "error" not in event, event
            pieces += [choice["text"] for choice in event["choices"]]
            finish = event["choices"][0]["finish_reason"]
            if kill and len(pieces) > 5:
                os.kill(kill, signal.SIGKILL)
                kill = 0
    assert (finish, kill) == ("length", 0)
    return "".join(pieces)


def test_a_rank_that_is_killed_in_the_middle_changes_nothing_about_a_text(model: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "one", model, ranks=1, standby=0) as alone:
        expected = text(alone)
    with cluster(tmp_path / "two", model, ranks=2, standby=1) as made:
        made.until(lambda: made.instances("standby"), "the standby is ready", 120)
        (decode,) = made.instances("decode")
        (follower,) = psutil.Process(decode["pid"]).children()
        assert text(made) == expected
        assert text(made, follower.pid) == expected
        made.until(lambda: gone([decode["pid"]]), "the decode has ended")
        made.until(lambda: made.instances("decode"), "the standby has become a decode", 120)
        (decode,) = made.instances("decode")
        assert len(psutil.Process(decode["pid"]).children()) == 1
        assert text(made) == expected
