"""One instance as a process of its own: real signals, honest exit codes."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.config import Nats, RedisSettings
from tests.servers import NatsServer, RedisServer

REPO = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""For a hang; no verdict depends on it except that of an end that never comes."""


class Process:
    """The probe service as a program, with its output as it comes."""

    def __init__(self, arguments: list[str], environ: dict[str, str], probe: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(REPO / "tests" / "probe_service.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(REPO), "PROBE": probe, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.words: list[str] = []
        self.errors = ""
        self._more = threading.Condition()
        self._said: queue.Queue[str] = queue.Queue()
        self._readers = [threading.Thread(target=self._read_words), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_words(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line.strip())

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line
            with self._more:
                self._more.notify_all()

    def says(self, word: str) -> None:
        while word not in self.words:
            self.words.append(self._said.get(timeout=PATIENCE_S))

    def hears(self, sentence: str) -> None:
        """Wait until it has complained."""
        with self._more:
            assert self._more.wait_for(lambda: sentence in self.errors, PATIENCE_S), self.errors

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        code = self.process.wait(timeout=PATIENCE_S)
        for reader in self._readers:
            reader.join()
        while not self._said.empty():
            self.words.append(self._said.get())
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.code()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


Start = Callable[..., Process]


@pytest.fixture
def start(nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path) -> Iterator[Start]:
    """Start a probe; `probe` is how long open, drain and a thread in open take."""
    config = tmp_path / "baton.toml"
    config.write_text(
        f'[nats]\nurl = "{nats_settings.url}"\nprefix = "{nats_settings.prefix}"\n'
        f'[redis]\nurl = "{redis_settings.url}"\n'
        "[fleet]\nlease_ttl_s = 3.0\ndrain_s = 20.0\nstop_s = 5.0\n"
        '[scenario.chat]\nmodel = "m"\nengine = "sim"\n'
    )
    environ = {"BATON_NATS__USER": nats_settings.user, "BATON_NATS__PASSWORD": nats_settings.password}
    processes: list[Process] = []

    def start(probe: str = "0,0,0", arguments: tuple[str, ...] = (), **changes: str) -> Process:
        process = Process(["--config", str(config), *arguments], {**environ, **changes}, probe)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_with_exit_code_0(start: Start, number: signal.Signals) -> None:
    process = start()
    process.says("ready")
    process.signal(number)
    assert process.code() == 0
    assert process.words == ["opening", "open", "ready", "draining", "drained", "closed"]
    assert f"received {number.name}" in process.errors


def test_a_signal_while_starting_stops_it_without_ever_being_ready(start: Start) -> None:
    process = start("600,0,0")
    process.says("opening")
    process.signal(signal.SIGTERM)
    assert process.code() == 0
    assert process.words == ["opening", "closed"]


def test_a_thread_that_computes_on_does_not_hold_up_the_end(start: Start) -> None:
    process = start("0,0,600")
    process.says("opening")
    process.signal(signal.SIGTERM)
    assert process.code() == 0


def test_a_second_signal_ends_the_drain_and_is_no_clean_stop(start: Start) -> None:
    process = start("0,19,0")
    process.says("ready")
    process.signal(signal.SIGTERM)
    process.says("draining")
    started = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.code() == 1
    assert "drained" not in process.words
    assert process.words[-1] == "closed"
    assert time.monotonic() - started < 15  # the drain alone would have taken 19


def test_the_command_line_wins_over_the_environment_and_the_environment_over_the_file(start: Start) -> None:
    process = start(
        arguments=("--id", "decode-7", "--group", "g2"),
        BATON_INSTANCE__ID="decode-8",
        BATON_TELEMETRY__LOG_FORMAT="json",
    )
    process.says("ready")
    process.signal(signal.SIGTERM)
    assert process.code() == 0
    assert '"instance":"decode-7"' in process.errors


def test_sighup_reads_the_file_again_and_a_faulty_one_changes_nothing(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "baton.toml"
    good = config.read_text()
    process = start()
    process.says("ready")
    config.write_text(good + "[telemetry]\nlog_level = 7\n[gateway]\nprot = 1\n")
    process.signal(signal.SIGHUP)
    process.hears("telemetry.log_level takes a string")
    assert "gateway.prot is no key" in process.errors
    config.write_text(good.replace("drain_s = 20.0", "drain_s = 0.25") + "[gateway]\nport = 8001\n")
    process.signal(signal.SIGHUP)
    process.hears("these keys change at the next start: gateway.port")
    process.signal(signal.SIGTERM)
    assert process.code() == 0
    assert process.words[-1] == "closed"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"BATON_GATEWAY__PORT": "high"}, "gateway.port takes a whole number, and 'high' is not one"),
        ({"BATON_NATS__URL": ""}, "nats.url is empty; set it, or start everything with `baton up`"),
        ({"BATON_SCENARIO__SECOND__MODEL": "m"}, "a decode serves one scenario; name it with --scenario"),
        ({"BATON_INSTANCE__SCENARIO": "none"}, "instance.scenario: there is no [scenario.none]"),
    ],
)
def test_mistakes_in_the_configuration_are_usage_errors(start: Start, changes: dict[str, str], sentence: str) -> None:
    process = start(**changes)
    assert process.code() == 2
    assert sentence in process.errors
    assert "Traceback" not in process.errors


def test_an_unknown_option_is_a_usage_error(start: Start) -> None:
    process = start(arguments=("--colour", "red"))
    assert process.code() == 2
    assert "--colour" in process.errors


def test_a_server_that_is_not_there_is_one_clear_sentence_and_exit_code_1(
    start: Start, nats_server: NatsServer
) -> None:
    process = start(BATON_NATS__URL="nats://127.0.0.1:1", BATON_NATS__CONNECT_TIMEOUT_S="0.5")
    assert process.code() == 1
    assert "cannot connect to NATS within 0.5 s" in process.errors
    assert "Traceback" not in process.errors
    assert nats_server.password not in process.errors


def test_redis_that_is_not_there_is_one_clear_sentence_and_exit_code_1(start: Start, redis_server: RedisServer) -> None:
    process = start(BATON_REDIS__URL="redis://:secret@127.0.0.1:1/0", BATON_NATS__CONNECT_TIMEOUT_S="1")
    assert process.code() == 1
    assert "Redis did not confirm the lease" in process.errors
    assert "Traceback" not in process.errors
    assert redis_server.password not in process.errors
