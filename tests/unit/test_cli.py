"""The `baton` command: exit codes, one clear sentence per error, quick to start, a chat with a scripted gateway."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.cli import main
from services.commands.chat import Gateway
from services.commands.inspection import table
from shared.errors import BatonError, LinkLost
from shared.messages import Group, InstanceRecord, Member, Role, ScenarioMap, State
from shared.report import report

HEAVY = ("torch", "transformers", "numpy", "aiohttp", "nats", "redis", "opentelemetry", "prometheus_client", "asyncio")


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BATON_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BATON_STATE_DIR", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "argv",
    [[], ["nonsense"], ["up", "--port", "70000"], ["up", "--prefill", "-1"], ["up", "--gateways", "0"], ["drain"]],
)
def test_wrong_usage_exits_with_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: baton" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["status"], ["status", "--json"], ["drain", "x"], ["chat"]])
def test_without_a_cluster_a_command_says_how_to_start_one(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "start one with `baton up`" in err


def test_a_wrong_configuration_is_usage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_GATEWAY__PROT", "1")
    assert main(["up"]) == 2
    assert "gateway.prot is no key; did you mean port?" in capsys.readouterr().err


def test_redis_that_does_not_answer_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_NATS__URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("BATON_REDIS__URL", "redis://:hidden@127.0.0.1:1/0")
    assert main(["status"]) == 1
    err = capsys.readouterr().err
    assert "Redis does not answer" in err
    assert "hidden" not in err


@pytest.mark.parametrize(
    "words",
    [
        ("scale", "chat"),
        ("scale", "chat", "--groups", "2", "--group", "main"),
        ("scale", "chat", "--decode", "0"),
        ("upgrade", "chat"),
        ("upgrade", "chat", "--back", "--model", "m"),
        ("upgrade", "chat", "--option", "dtype"),
        ("upgrade", "chat", "--option", "a=1", "--canary", "51"),
        ("explain",),
    ],
)
def test_an_order_that_makes_no_sense_is_a_usage_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_NATS__URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("BATON_REDIS__URL", "redis://127.0.0.1:1/0")
    try:
        status = main(list(words))
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2
    assert capsys.readouterr().err


def test_the_command_line_imports_nothing_heavy_before_it_knows_what_for() -> None:
    code = f"import sys, services.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_table_shows_every_instance_and_every_scenario() -> None:
    records = [
        InstanceRecord("decode-1", Role.DECODE, State.READY, (7, 2), "chat", "main", 12, "here", 8, 3),
        InstanceRecord("gateway-1", Role.GATEWAY, State.READY, (7, 1), pid=11, host="here"),
    ]
    maps = [
        ScenarioMap("chat", 4, (7, 3), [Group("main", [Member("prefill-1", (7, 4))], [Member("decode-1", (7, 2))])])
    ]
    text = table(report(records, {"decode-1"}, maps))
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "ROLE", "SCENARIO", "GROUP", "STATE", "LOAD", "EPOCH", "PID", "HOST"]
    assert lines[1].split() == ["gateway-1", "gateway", "-", "-", "failed", "-", "7.1", "11", "here"]  # no lease
    assert lines[2].split() == ["decode-1", "decode", "chat", "main", "ready", "3/8", "7.2", "12", "here"]
    assert lines[3] == "scenario chat: map version 4, ratio 1:1 (prefill:decode)"
    assert lines[4] == "  group main: open, 1 of 0 prefills, 1 of 0 decodes, revision 0"


# ---- chat ------------------------------------------------------------------------------------------------------------


class Scripted(ThreadingHTTPServer):
    """A gateway that answers what it is told to, and remembers what it was asked."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: list[str] = []
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for `Scripted`."""

    server: Scripted

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"data": [{"id": "chat"}, {"id": "code"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append({"path": self.path, "key": self.headers.get("authorization"), **body})
        self._answer(self.server.status, "".join(f"id: 1\ndata: {event}\n\n" for event in self.server.events))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _piece(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def _chat(scripted: Scripted, said: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    return main(["chat", "--url", scripted.url, *options])


def test_a_chat_streams_the_answer_and_keeps_the_conversation(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.events = [_piece("Hel"), _piece("lo"), '{"choices":[{"delta":{}}]}', "[DONE]"]
    assert _chat(scripted, "one\n\ntwo\n", monkeypatch) == 0
    assert capsys.readouterr().out == "Hello\nHello\n"
    assert [asked["messages"] for asked in scripted.asked] == [
        [{"role": "user", "content": "one"}],
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "two"},
        ],
    ]
    assert {(asked["model"], asked["path"], asked["stream"]) for asked in scripted.asked} == {
        ("chat", "/v1/chat/completions", True)
    }


def test_the_scenario_and_the_key_are_sent(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.events = ["[DONE]"]
    monkeypatch.setenv("BATON_API_KEY", "k")
    assert _chat(scripted, "one\n", monkeypatch, "--scenario", "code") == 0
    assert [(asked["model"], asked["key"]) for asked in scripted.asked] == [("code", "Bearer k")]


@pytest.mark.parametrize(
    ("status", "events", "sentence"),
    [
        (200, [_piece("x")], "The answer broke off before its end"),
        (200, [json.dumps({"error": {"message": "no worker left"}})], "no worker left"),
        (503, [], "The gateway answered 503"),
    ],
)
def test_an_answer_that_fails_is_told_and_fails_the_command(
    *,
    status: int,
    events: list[str],
    sentence: str,
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted.status, scripted.events = status, events
    assert _chat(scripted, "one\n", monkeypatch) == 1
    assert sentence in capsys.readouterr().err


def test_a_gateway_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(LinkLost, match="does not answer"):
        Gateway("http://127.0.0.1:1/v1").scenarios()
    with pytest.raises(BatonError, match="is no URL of a gateway"):
        Gateway("nonsense")
