"""Several gateways on one port, their reload, and TLS, as `baton up` gives them."""

import os
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.contract.gateway.certificates import Authority
from tests.e2e.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateways")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    file = folder / "baton.toml"
    file.write_text('[scenario.chat]\nmodel = "gemma-3-270m"\n[scenario.chat.engine_options]\ntokenizer = ""\n')
    return file


@pytest.fixture(scope="module")
def cluster(folder: Path, config: Path) -> Iterator[LocalCluster]:
    made = LocalCluster(folder, "--gateways", "3", "--standby", "0", "--config", str(config))
    yield made.start()
    made.close()


def listening(cluster: LocalCluster) -> set[int]:
    """Processes that listen on the one port."""
    port = int(cluster.url.split(":")[2].partition("/")[0])
    found = set()
    for one in cluster.instances("gateway"):
        links = psutil.Process(one["pid"]).net_connections("tcp")
        found |= {one["pid"] for link in links if link.status == psutil.CONN_LISTEN and link.laddr.port == port}
    return found


def test_all_gateways_listen_on_the_one_port_and_status_shows_each(cluster: LocalCluster) -> None:
    assert len(cluster.instances("gateway")) == 3
    assert len(listening(cluster)) == 3
    assert cluster.output.count("baton ready ") == 1
    for _ in range(5):
        assert cluster.chat("hello")["usage"]["completion_tokens"] == 8


def test_killing_one_gateway_leaves_the_port_served_and_another_takes_its_place(cluster: LocalCluster) -> None:
    before = listening(cluster)
    os.kill(min(before), signal.SIGKILL)
    cluster.until(lambda: not psutil.pid_exists(min(before)), "it is gone")
    for _ in range(10):  # each on a connection of its own
        assert cluster.chat("hello")["choices"]
    cluster.until(lambda: len(listening(cluster)) == 3, "three gateways listen again")
    assert len(listening(cluster) & before) == 2


def test_reload_tells_what_each_instance_has_answered(cluster: LocalCluster, config: Path) -> None:
    good = config.read_text()
    config.write_text(good + "[gateway]\nmax_body_bytes = 2000\nmax_streams = 9\n")
    done = cluster.baton("reload", "--config", str(config))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("gateway-")]) == 3
    assert all("has reloaded" in line for line in lines)
    assert "at its next start change: gateway.max_streams" in next(line for line in lines if line.startswith("gateway"))
    request = urllib.request.Request(f"{cluster.url}/completions", b" " * 2001)  # noqa: S310  our own loopback
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310
    assert refused.value.code == 413
    refused.value.close()
    gateway = cluster.instances("gateway")[0]["id"]
    config.write_text(good + '[gateway]\ntls_cert = "/nowhere.pem"\ntls_key = "/nowhere.key"\n')
    done = cluster.baton("reload", gateway)
    assert done.returncode == 1
    assert f"{gateway} refused, nothing has changed there" in done.stdout
    config.write_text(good)
    os.kill(cluster.instances("gateway")[0]["pid"], signal.SIGHUP)
    assert cluster.baton("reload", "nobody").returncode == 1
    assert cluster.chat("hello")["choices"]


def test_a_cluster_over_tls_is_ready_under_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("gateway")
    cluster = LocalCluster(tmp_path, "--standby", "0")
    cluster.environ |= {"BATON_GATEWAY__TLS_CERT": str(cert), "BATON_GATEWAY__TLS_KEY": str(key)}
    try:
        cluster.start()
        assert cluster.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(authority.file))
        with urllib.request.urlopen(f"{cluster.url}/models", timeout=10, context=context) as answer:  # noqa: S310
            assert b'"chat"' in answer.read()
        cluster.environ["SSL_CERT_FILE"] = str(authority.file)
        said = cluster.baton("chat", "--max-tokens", "1")
        assert said.returncode == 0, said.stderr
    finally:
        cluster.close()
