"""deploy/kubernetes: each object is valid, its names agree with the others', and its settings are ones Baton knows."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services.local.permissions import password_variable, render, users
from shared.config import Config, load

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
BASE = FOLDER / "base"
EXAMPLE = FOLDER / "overlays" / "example"
SCHEMA = "1.31"
WORKLOADS = {"Deployment", "StatefulSet"}
OURS = {"gateway", "monitor", "standby"}
GENERATED = {"baton-config", "nats-config"}
ELSEWHERE = {53, 443, 6443}
"""Ports of the cluster itself."""
Json = dict[str, Any]


def read(path: Path) -> list[Json]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


KUSTOMIZATION = read(BASE / "kustomization.yaml")[0]
OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in read(BASE / name)]
PODS = {one["metadata"]["name"]: one["spec"]["template"] for one in OBJECTS if one["kind"] in WORKLOADS}
CONFIG_FILE = BASE / "baton.toml"


def of_kind(*kinds: str) -> list[Json]:
    return [one for one in OBJECTS if one["kind"] in kinds]


def containers(pod: Json) -> list[Json]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def ports(pod: Json) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}


def chosen(selector: Json) -> list[Json]:
    """Find the pods that a selector means."""
    labels = selector.get("matchLabels", {}).items()
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return [
        pod
        for pod in PODS.values()
        if labels <= pod["metadata"]["labels"].items()
        and all(pod["metadata"]["labels"].get(rule["key"]) in rule["values"] for rule in rules)
    ]


def environment(container: Json) -> dict[str, str]:
    """Give a container's variables the values that they may have in a pod."""
    made: dict[str, str] = {}
    for entry in container.get("env", []):
        value = entry.get("value")
        if value is None:
            field = entry["valueFrom"].get("fieldRef", {}).get("fieldPath")
            value = {"metadata.name": "standby-7d4b9-x2x", "status.podIP": "10.0.0.7"}.get(field, "p1")
        made[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda found: made[found[1]], value)
    return made


def configuration(name: str, extra: Json | None = None) -> Config:
    container = PODS[name]["spec"]["containers"][0]
    return load(CONFIG_FILE, environment({"env": [*container["env"], *((extra or {}).get("env", []))]}))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What the script makes."""
    path = tmp_path_factory.mktemp("secrets") / "secrets.env"
    subprocess.run([FOLDER / "secrets.sh", path], check=True, capture_output=True)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert path.stat().st_mode & 0o077 == 0
    assert len({line.partition("=")[2] for line in lines}) == len(lines)
    return {line.partition("=")[0] for line in lines}


def test_every_file_is_part_of_it_and_every_object_is_valid() -> None:
    generated = [name for one in KUSTOMIZATION["configMapGenerator"] for name in one["files"]]
    assert {*KUSTOMIZATION["resources"], *generated, "kustomization.yaml"} == {path.name for path in BASE.iterdir()}
    assert {one["name"] for one in KUSTOMIZATION["configMapGenerator"]} == GENERATED
    for one in OBJECTS:
        kubernetes_validate.validate(one, SCHEMA, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in OBJECTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("one", of_kind(*WORKLOADS), ids=lambda one: one["metadata"]["name"])
def test_a_workload_selects_its_own_pods_and_no_others(one: Json) -> None:
    own = one["spec"]["template"]
    assert chosen(one["spec"]["selector"]) == [own]
    for rule in own["spec"]["topologySpreadConstraints"] if one["spec"].get("replicas") != 1 else []:
        assert chosen(rule["labelSelector"]) == [own]


def test_services_and_budgets_mean_pods_that_exist() -> None:
    for service in of_kind("Service"):
        [pod] = chosen({"matchLabels": service["spec"]["selector"]})
        assert pod is PODS[service["metadata"]["name"]]
        for port in service["spec"]["ports"]:
            assert ports(pod)[port["targetPort"]] == port["port"]
    for budget in of_kind("PodDisruptionBudget"):
        assert chosen(budget["spec"]["selector"]) == [PODS[budget["metadata"]["name"]]]
    assert {one["metadata"]["name"] for one in of_kind("PodDisruptionBudget")} == set(PODS) - {"redis"}
    assert {one["spec"]["serviceName"] for one in of_kind("StatefulSet")} <= {
        one["metadata"]["name"] for one in of_kind("Service")
    }


def peers(rules: list[Json], side: str) -> Iterator[tuple[list[Json], set[int]]]:
    for rule in rules:
        among = [pod for peer in rule.get(side, []) if "podSelector" in peer for pod in chosen(peer["podSelector"])]
        yield among, {port["port"] for port in rule["ports"]}


def test_the_network_is_closed_but_for_what_is_needed() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for spec in policies.values():
        for _, numbers in peers(spec.get("ingress", []), "from"):
            assert all(number in set(ports(pod).values()) for pod in chosen(spec["podSelector"]) for number in numbers)
        for among, numbers in peers(spec.get("egress", []), "to"):
            assert numbers <= ELSEWHERE or all(numbers <= set(ports(pod).values()) for pod in among)
    entrances = {
        (name, number): {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in among}
        for name, spec in policies.items()
        for among, numbers in peers(spec.get("ingress", []), "from")
        for number in numbers
    }
    kv = ports(PODS["standby"])["kv"]
    assert entrances == {
        ("nats", 4222): OURS,
        ("nats", 6222): {"nats"},
        ("redis", 6379): OURS,
        ("kv", kv): {"standby"},  # KV goes between workers alone
        ("gateway", 8000): set(),  # anybody
        ("metrics", 8020): set(),  # namespaces that bear the label
    }
    assert all("from" in rule for rule in policies["metrics"]["ingress"])
    exits = {
        (pod["metadata"]["labels"]["app.kubernetes.io/component"], number)
        for spec in policies.values()
        for pod in chosen(spec["podSelector"])
        for _, numbers in peers(spec.get("egress", []), "to")
        for number in numbers - {53}
    }
    served = {(name, number) for name in OURS for number in (4222, 6379)}
    assert exits == served | {("nats", 6222), ("standby", kv), ("monitor", 443), ("monitor", 6443)}


def test_what_pods_refer_to_exists(secrets: set[str]) -> None:
    accounts = {one["metadata"]["name"] for one in of_kind("ServiceAccount")}
    for pod in PODS.values():
        volumes = {one["name"]: one for one in pod["spec"].get("volumes", [])}
        assert {one["configMap"]["name"] for one in volumes.values() if "configMap" in one} <= GENERATED
        assert pod["spec"].get("serviceAccountName", "monitor") in accounts
        for container in containers(pod):
            claims = {"data"} if container["name"] == "redis" else set()
            assert {one["name"] for one in container.get("volumeMounts", [])} <= set(volumes) | claims
            for entry in container.get("env", []):
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    assert reference["name"] == "baton-secrets"
                    assert reference["key"] in secrets
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {})
                port = {**asked.get("httpGet", {}), **asked.get("tcpSocket", {})}.get("port")
                assert port is None or port in ports(pod)


def test_nats_knows_every_user_and_its_permissions_are_the_rendered_ones(secrets: set[str]) -> None:
    assert (BASE / "baton.conf").read_text(encoding="utf-8") == render()
    asked = set(re.findall(r"\$(BATON_\w+)", render() + (BASE / "nats.conf").read_text(encoding="utf-8")))
    assert {password_variable(user.name) for user in users()} | {"BATON_NATS_PASSWORD_ROUTE"} == asked
    assert asked | {"BATON_REDIS_PASSWORD", "BATON_MONITOR_TOKEN"} == secrets
    [nats] = [one for one in of_kind("StatefulSet") if one["metadata"]["name"] == "nats"]
    number = nats["spec"]["replicas"]
    assert configuration("gateway").nats.servers == [f"nats://nats-{one}.nats:4222" for one in range(number)]
    routes = [text for name, text in environment(PODS["nats"]["spec"]["containers"][0] | {"env": [
        {"name": "BATON_NATS_PASSWORD_ROUTE", "value": "p1"}, *PODS["nats"]["spec"]["containers"][0]["env"]
    ]}).items() if name.startswith("ROUTE_")]  # fmt: skip
    assert routes == [f"nats://route:p1@nats-{one}.nats:6222" for one in range(number)]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_is_configured_as_its_pod_says(name: str) -> None:
    config, pod = configuration(name), PODS[name]
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", f"services.{name}", "--config", "/etc/baton/baton.toml"]
    assert config.instance.id == "standby-7d4b9-x2x"
    assert config.redis.url == "redis://:p1@redis:6379/0"
    assert all(
        config.nats.credentials_for(role) != ("", "")
        for role in (["standby", "prefill", "decode"] if name == "standby" else [name])
    )
    known = {"health": config.instance.health_port, "http": config.gateway.port, "kv": config.kv.port}
    known |= {"http": config.monitor.port} if name == "monitor" else {}
    assert ports(pod) == {port: known[port] for port in ports(pod)}
    pause = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])[1]
    needed = config.fleet.drain_s + config.fleet.stop_s + float(pause)
    assert pod["spec"]["terminationGracePeriodSeconds"] > needed
    assert config.gateway.auth == "keys"
    if name == "standby":
        assert config.kv.advertise == "10.0.0.7"


def test_every_container_is_locked_down() -> None:
    for name, pod in PODS.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec.get("automountServiceAccountToken", True) is (name == "monitor")
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} == set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_the_provisioner_may_do_what_it_does_and_no_more() -> None:
    [role], [binding] = of_kind("Role"), of_kind("RoleBinding")
    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["standby"], "verbs": ["get"]},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": ["standby"],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch", "delete"]},
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": PODS["monitor"]["spec"]["serviceAccountName"]}]
    monitor = configuration("monitor").monitor
    assert (monitor.provisioner, monitor.provisioner_options) == ("kubernetes", {"deployment": "standby"})
    [standby] = [one for one in of_kind("Deployment") if one["metadata"]["name"] == "standby"]
    assert "replicas" not in standby["spec"]  # the monitor's to say


def test_images_are_those_that_compose_uses_and_our_own_of_this_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    compose = read(REPOSITORY / "compose.yaml")[0]["services"]
    images = {(name, container["image"]) for name, pod in PODS.items() for container in containers(pod)}
    ours = {(name, f"baton:{version}") for name in OURS}
    assert images == ours | {(name, compose[name]["image"]) for name in ("nats", "redis")}


def test_the_example_changes_what_exists() -> None:
    [example] = read(EXAMPLE / "kustomization.yaml")
    assert example["resources"] == ["../../base"]
    assert [one["name"] for one in example["images"]] == ["baton"]
    assert [(one["name"], one["envs"]) for one in example["secretGenerator"]] == [("baton-secrets", ["secrets.env"])]
    files = {path.name for path in EXAMPLE.glob("*.yaml")} - {"kustomization.yaml"}
    assert {one["path"] for one in example["patches"]} | {"npu.yaml"} == files
    known = {(one["kind"], one["metadata"]["name"]) for one in OBJECTS}
    for patch in (one for name in files for one in read(EXAMPLE / name)):
        assert (patch["kind"], patch["metadata"]["name"]) in known
        for changed in patch["spec"].get("template", {}).get("spec", {}).get("containers", []):
            [container] = PODS[patch["metadata"]["name"]]["spec"]["containers"]
            assert changed["name"] == container["name"]
            device = changed["env"][0]["value"]
            config = configuration(patch["metadata"]["name"], changed)
            assert config.scenarios["chat"].engine_options["device"] == device
