"""The state directory: one holder, private files, nothing believed of a cluster that is gone."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.local import state
from services.local.state import AlreadyRunning, Cluster, NotRunning, StateDirectory, directory, running

CLUSTER = Cluster(
    pid=1,
    url="http://127.0.0.1:8000/v1",
    gateways=["http://127.0.0.1:8000/v1"],
    dashboard="http://127.0.0.1:8010/",
    nats="nats://client:secret@127.0.0.1:4222",
    nats_operator="nats://operator:secret@127.0.0.1:4222",
    nats_prefix="baton",
    redis="redis://:secret@127.0.0.1:6379/0",
)
HOLD = """
import sys, time
from services.local.state import Path, StateDirectory
with StateDirectory(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_is_published_can_be_read_while_the_directory_is_held(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as held:
        held.publish(CLUSTER)
        assert running(tmp_path) == CLUSTER


def test_a_second_holder_is_refused_by_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with StateDirectory(tmp_path), pytest.raises(AlreadyRunning, match="stop it first, or set BATON_STATE_DIR"):
        StateDirectory(tmp_path).__enter__()


def test_a_refused_second_holder_leaves_the_first_ones_cluster_readable(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as held:
        held.publish(CLUSTER)
        with pytest.raises(AlreadyRunning):
            StateDirectory(tmp_path).__enter__()
        assert running(tmp_path) == CLUSTER


def test_looking_at_a_running_cluster_does_not_stop_a_new_holder(tmp_path: Path) -> None:
    with pytest.raises(NotRunning), StateDirectory(tmp_path):
        running(tmp_path)  # starting: held, and nothing published yet
    with StateDirectory(tmp_path):
        pass


def test_after_release_no_cluster_is_running(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as held:
        held.publish(CLUSTER)
    with pytest.raises(NotRunning, match="start one with `baton up`"):
        running(tmp_path)


def test_what_a_killed_holder_left_is_not_believed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        (tmp_path / "cluster.json").write_text("{}")
        with pytest.raises(NotRunning, match="cannot be read"):  # held, and damaged
            running(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with pytest.raises(NotRunning, match="No cluster runs"):
        running(tmp_path)
    with StateDirectory(tmp_path):
        assert not (tmp_path / "cluster.json").exists()


def test_files_with_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    os.umask(0o022)
    path = tmp_path / "cluster"
    with StateDirectory(path) as held:
        held.publish(CLUSTER)
        written = held.private("nats.conf", "secret")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for file in (written, path / "cluster.json"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(state.BatonError, match="cannot be used"):
        StateDirectory(tmp_path / "file" / "below").__enter__()


@pytest.mark.parametrize(("environ", "path"), [({}, state.DEFAULT), ({"BATON_STATE_DIR": "~/x"}, "~/x")])
def test_the_environment_names_the_directory(environ: dict[str, str], path: str) -> None:
    assert directory(environ) == Path(path).expanduser()
