"""`baton keys` beside a cluster that runs: from an open gateway to keys, limits, revocation, and an audit log."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.local_cluster import LocalCluster

CONFIG = """
[scenario.chat]
model = "sim"
engine = "sim"
[tenant.acme]
requests_per_minute = 5
tokens_per_minute = 5000
[gateway]
audit_file = "{audit}"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("keys")
    config = folder / "baton.toml"
    config.write_text(CONFIG.format(audit=folder / "audit.jsonl"))
    made = LocalCluster(folder, "--gateways", "2", "--config", str(config))
    yield made.start()
    made.close()


def ways(cluster: LocalCluster) -> list[str]:
    """Each port several times: gateways may share one, and each connection then meets any of them."""
    found: list[str] = json.loads((cluster.folder / "state" / "cluster.json").read_text())["gateways"]
    return found * 4


def create(cluster: LocalCluster, *options: str) -> str:
    done = cluster.baton("keys", "create", *options, "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return done.stdout.strip()


def keys(cluster: LocalCluster) -> list[dict[str, Any]]:
    done = cluster.baton("keys", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


def status(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/models", headers={"authorization": f"Bearer {key}"} if key else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_life_of_a_key(cluster: LocalCluster) -> None:
    urls = ways(cluster)
    assert {status(url, "") for url in urls} == {200}
    key = create(cluster, "--tenant", "acme", "--scenario", "chat", "--expires", "30d", "--name", "laptop")
    assert {status(url, key) for url in urls} == {200}
    assert {status(url, wrong) for url in urls for wrong in ("", "nonsense", key + "x")} == {401}

    shown = next(one for one in keys(cluster) if one["name"] == "laptop")
    assert (shown["tenant"], shown["scenarios"], shown["state"]) == ("acme", ["chat"], "active")
    assert shown["expires"] > shown["created"]
    assert key.split("-", 2)[2] not in cluster.baton("keys", "list").stdout
    cluster.until(lambda: next(one for one in keys(cluster) if one["name"] == "laptop")["last_used"], "it was used", 10)

    good, limits = 0, []
    for number in range(12):
        with openai.OpenAI(base_url=urls[number % len(urls)], api_key=key, max_retries=0) as client:
            try:
                client.completions.create(model="chat", prompt="hello", max_tokens=2)
                good += 1
            except openai.RateLimitError as error:
                limits.append(error.response.headers["x-ratelimit-limit-requests"])
    assert set(limits) == {"5"}
    assert 5 <= good <= 6  # one more every twelve seconds

    again = cluster.baton("keys", "create", "--tenant", "acme", "--name", "laptop")
    assert (again.returncode, again.stdout) == (1, "")
    assert "revoke that one first" in again.stderr
    for said in ("is revoked", "was revoked already"):
        done = cluster.baton("keys", "revoke", shown["id"], "--wait")
        assert (done.returncode, done.stdout) == (0, f"{shown['id']} {said}\n")
        assert {status(url, key) for url in urls} == {401}
    assert next(one for one in keys(cluster) if one["id"] == shown["id"])["state"] == "revoked"


def test_the_audit_log_tells_it_all_and_holds_no_secret(cluster: LocalCluster) -> None:
    key = create(cluster, "--tenant", "other")
    first = ways(cluster)[0]
    with openai.OpenAI(base_url=first, api_key=key, max_retries=0) as client:
        client.completions.create(model="chat", prompt="the secret of the prompt", max_tokens=2)
    assert status(first, "sk-somebody-elses") == 401
    cluster.baton("keys", "revoke", key.split("-")[1], "--wait")
    path = Path(cluster.folder / "audit.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    mine = [event for event in events if event.get("key") == key.split("-")[1]]
    assert {event["event"] for event in mine} == {"key.created", "key.used", "key.revoked"}
    used = next(event for event in mine if event["event"] == "key.used")
    assert (used["tenant"], used["scenario"], used["outcome"], used["completion_tokens"]) == ("other", "chat", "ok", 2)
    assert all("@" in event["by"] for event in mine if event["event"] != "key.used")
    assert "credential.refused" in {event["event"] for event in events}
    text = path.read_text()
    assert not any(secret in text for secret in (key.split("-", 2)[2], "secret of the prompt", "somebody-elses"))
    assert (path.stat().st_mode & 0o777) == 0o600


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "--tenant", "a b"), "must be 1 to 64 letters"),
        (("create", "--tenant", "x", "--expires", "soon"), "is no time like"),
        (("create", "--tenant", "x", "--scenario", "A!"), "is no name of a scenario"),
        (("revoke", "000000000000"), "There is no key 000000000000"),
        (("revoke", "*"), "is no id of a key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(cluster: LocalCluster, arguments: tuple[str, ...], sentence: str) -> None:
    done = cluster.baton("keys", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert sentence in done.stderr


def test_another_cluster_is_reached_by_its_configuration(cluster: LocalCluster, tmp_path: Path) -> None:
    found = json.loads((cluster.folder / "state" / "cluster.json").read_text())
    config = tmp_path / "there.toml"
    config.write_text(f'[redis]\nurl = "{found["redis"]}"\n[nats]\nurl = "{found["nats"]}"\n')
    environ = {**os.environ, "BATON_STATE_DIR": str(tmp_path / "nothing")}
    before, cluster.environ = cluster.environ, environ
    try:
        assert cluster.baton("keys", "list").returncode == 1  # no cluster of its own
        done = cluster.baton("keys", "list", "--json", "--config", str(config))
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)
    finally:
        cluster.environ = before


@pytest.mark.long
def test_keys_outlive_the_cluster_and_a_new_one_is_not_open_again(tmp_path: Path) -> None:
    first = LocalCluster(tmp_path, "--standby", "0")
    try:
        first.start()
        key = create(first, "--tenant", "acme")
        before = {one["id"] for one in first.status()["instances"]}
        first.signal(signal.SIGTERM)
        assert first.ended() == 0
    finally:
        first.close()
    second = LocalCluster(tmp_path, "--standby", "0")
    try:
        second.start()
        assert status(second.url, "") == 401
        assert status(second.url, key) == 200
        report = second.status()
        assert {one["id"] for one in report["instances"]} == before  # the same names, nothing of the earlier run beside
        assert {one["state"] for one in report["instances"]} == {"ready"}
    finally:
        second.close()
