"""`baton up` as a user meets it, on the sim engine: ready, asked, hurt, stopped."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.local_cluster import LocalCluster, command, gone
from tests.processes import alive

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster for the tests that leave it whole."""
    made = LocalCluster(tmp_path_factory.mktemp("cluster"), "--gateways", "2")
    yield made.start()
    made.close()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster that the test may hurt."""
    made = LocalCluster(tmp_path)
    yield made
    made.close()


def test_the_ready_line_is_true_and_a_curl_line_follows(cluster: LocalCluster) -> None:
    answer = cluster.chat("hello")
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 8
    assert f"curl -N {cluster.url}/chat/completions" in cluster.output


def test_status_shows_every_instance_with_its_role_and_process(cluster: LocalCluster) -> None:
    cluster.until(lambda: len(cluster.instances("standby")) == 1, "the standby is ready")
    report = cluster.status()
    roles = sorted(one["role"] for one in report["instances"] if one["state"] == "ready")
    assert roles == ["decode", "gateway", "gateway", "monitor", "prefill", "standby"]
    assert all(alive(one["pid"]) for one in report["instances"])
    promised = ["id", "role", "scenario", "group", "state", "epoch", "pid", "host", "slots", "load", "health_url"]
    assert all(set(one) >= {*promised, "reason", "health", "revision"} for one in report["instances"])
    assert [(one["name"], one["ratio"]) for one in report["scenarios"]] == [("chat", "1:1")]
    assert "decode-1" in cluster.baton("status").stdout


def test_chat_speaks_with_the_cluster_it_finds(cluster: LocalCluster) -> None:
    argv = command("chat", "--max-tokens", "8")
    done = subprocess.run(
        argv, env=cluster.environ, input="one\ntwo\n", capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("example", ["nats_client.py", "openai_client.py"])
def test_the_examples_stream_an_answer(example: str, cluster: LocalCluster) -> None:
    environ = {**cluster.environ, "OPENAI_BASE_URL": cluster.url}
    argv = [sys.executable, str(REPOSITORY / "examples" / example), "hello"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 10


def test_a_second_cluster_in_the_same_state_directory_is_refused(cluster: LocalCluster) -> None:
    second = subprocess.run(
        command("up", "--engine", "sim", "--port", "0", "--dashboard-port", "0"),
        env=cluster.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (second.returncode, second.stdout) == (1, "")
    assert "already runs in" in second.stderr
    assert "BATON_STATE_DIR" in second.stderr
    assert cluster.chat("still there")["choices"]


def test_a_taken_port_is_refused_before_anything_starts(cluster: LocalCluster, tmp_path: Path) -> None:
    environ = {**cluster.environ, "BATON_STATE_DIR": str(tmp_path / "other")}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for option in ("--port", "--dashboard-port"):
            argv = [*command("up", "--engine", "sim", "--port", "0", "--dashboard-port", "0"), option, str(port)]
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 1
            assert f"Port {port} on 127.0.0.1 cannot be used" in done.stderr
            assert f"choose another one with {option}" in done.stderr
            assert list((tmp_path / "other" / "logs").iterdir()) == []


def test_two_clusters_run_side_by_side(cluster: LocalCluster, own_cluster: LocalCluster) -> None:
    own_cluster.start()
    assert own_cluster.url != cluster.url
    assert own_cluster.chat("one")["choices"]
    assert cluster.chat("two")["choices"]


def test_secrets_are_readable_by_their_owner_only(cluster: LocalCluster) -> None:
    state = Path(cluster.environ["BATON_STATE_DIR"])
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    passwords = json.loads((state / "cluster.json").read_text())["redis"].split(":")[2].split("@")[0]
    assert passwords not in cluster.output
    shown = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert passwords not in shown


def test_a_killed_decode_is_replaced_by_the_standby_and_the_next_request_succeeds(own_cluster: LocalCluster) -> None:
    own_cluster.start()
    before = own_cluster.chat("the same question")
    own_cluster.until(lambda: own_cluster.instances("standby"), "the standby is ready")
    (decode,) = own_cluster.instances("decode")
    (standby,) = own_cluster.instances("standby")
    subprocess.run(["kill", "-9", str(decode["pid"])], check=True)
    answer = own_cluster.chat("the same question")
    assert answer["choices"][0]["message"]["content"] == before["choices"][0]["message"]["content"]
    own_cluster.until(lambda: own_cluster.instances("decode"), "a decode is ready")
    (substitute,) = own_cluster.instances("decode")
    assert (substitute["id"], substitute["pid"]) == (standby["id"], standby["pid"])
    assert [one["id"] for one in own_cluster.instances("decode", "failed")] == [decode["id"]]
    own_cluster.until(lambda: own_cluster.instances("standby"), "a fresh standby is ready")
    assert own_cluster.instances("standby")[0]["id"] != standby["id"]
    assert f"{decode['id']} was killed by SIGKILL" in own_cluster.output


@pytest.mark.parametrize("role", ["gateway", "monitor", "prefill"])
def test_whatever_is_killed_comes_back(role: str, own_cluster: LocalCluster) -> None:
    own_cluster.start()
    own_cluster.until(lambda: own_cluster.instances("standby"), "the standby is ready")
    (lost,) = own_cluster.instances(role)
    subprocess.run(["kill", "-9", str(lost["pid"])], check=True)
    own_cluster.until(
        lambda: [one for one in own_cluster.instances(role) if one["id"] != lost["id"]], f"another {role} is ready"
    )
    own_cluster.until(lambda: _answers(own_cluster), "a request succeeds")


def test_killed_servers_come_back_and_requests_succeed_again(own_cluster: LocalCluster) -> None:
    own_cluster.start()
    for name in ("nats-server", "valkey-server"):
        subprocess.run(["pkill", "-9", "-P", str(own_cluster.pid), "-f", name], check=True)
        own_cluster.until(lambda name=name: f"{name} was killed" in own_cluster.output, f"{name} is missed")
        own_cluster.until(lambda: _answers(own_cluster), "a request succeeds")


def test_a_drained_decode_leaves_and_is_replaced(own_cluster: LocalCluster) -> None:
    own_cluster.start()
    own_cluster.until(lambda: own_cluster.instances("standby"), "the standby is ready")
    done = own_cluster.baton("drain", "decode-1", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "decode-1 has left\n", "")
    again = own_cluster.baton("drain", "decode-1")
    assert (again.returncode, again.stdout) == (0, "decode-1 has left already\n")
    own_cluster.until(lambda: own_cluster.instances("decode"), "another decode is ready")
    assert own_cluster.chat("hello")["choices"]
    unknown = own_cluster.baton("drain", "nobody")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "There is no instance nobody" in unknown.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(number: signal.Signals, own_cluster: LocalCluster) -> None:
    own_cluster.start()
    pids = own_cluster.processes()
    assert len(pids) >= 7
    own_cluster.signal(number)
    assert own_cluster.ended() == 0
    assert gone(pids)
    assert "was killed" not in own_cluster.output
    assert own_cluster.output.endswith("stopped\n")
    assert "start one with `baton up`" in own_cluster.baton("status").stderr


def test_killing_baton_up_itself_leaves_no_process(own_cluster: LocalCluster) -> None:
    own_cluster.start()
    pids = own_cluster.processes()
    own_cluster.signal(signal.SIGKILL)
    assert own_cluster.ended() == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while not gone(pids):
        assert time.monotonic() < deadline, "processes are left behind"
        time.sleep(0.02)
    own_cluster.start()  # what the killed one left does not stand in the way
    assert own_cluster.chat("again")["choices"]


def test_being_stopped_while_starting_leaves_no_process(own_cluster: LocalCluster) -> None:
    own_cluster.launch()
    own_cluster.until(lambda: len(own_cluster.processes()) >= 7, "everything is starting")
    pids = own_cluster.processes()
    own_cluster.signal(signal.SIGTERM)
    assert own_cluster.ended() == 0
    assert gone(pids)
    assert "baton ready" not in own_cluster.output


def test_a_model_that_is_not_there_is_one_clear_error(own_cluster: LocalCluster) -> None:
    done = own_cluster.baton("up", "--port", "0", "--dashboard-port", "0", "--model", "/nowhere/model")
    assert done.returncode != 0
    assert "/nowhere/model" in done.stderr
    assert "Traceback" not in done.stderr


def _answers(cluster: LocalCluster) -> bool:
    try:
        return bool(cluster.chat("hello")["choices"])
    except OSError:
        return False
