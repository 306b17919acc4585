"""deploy/ascend and docs/ascend.md: what they name exists, what they set is accepted, no two workers share a device."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli import _parser
from services.local.plan import Plan, Wishes
from shared.config import Config, load
from shared.engine.vllm_engine.options import read_options
from shared.engine.vllm_engine.platform import ASCEND
from shared.errors import ConfigError
from shared.messages import Role

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "ascend"
EXAMPLE = FOLDER / "baton.atlas.toml"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "docs" / "ascend.md").read_text(encoding="utf-8")
WORKERS = ("prefill", "decode", "standby")
SHARED_DEVICES = {"/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"}
GIVEN = {"BATON_MODEL": "/models/m", "BATON_MODELS": "/data/models"}
Json = dict[str, Any]


def services(path: Path) -> Json:
    found: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(found["services"])


def filled(value: object) -> str:
    """Put in what a variable of compose has, or its default, or something."""
    return re.sub(r"\$\{(\w+)(?::[?-]([^}]*))?\}", lambda found: GIVEN.get(found[1]) or found[2] or "x", str(value))


BASE = services(REPOSITORY / "compose.yaml")
OVERRIDE = services(FOLDER / "compose.ascend.yaml")


def configuration(name: str) -> Config:
    """Of a service, as compose merges its two environments."""
    environ = {**BASE[name]["environment"], **OVERRIDE[name]["environment"]}
    return load(None, {key: filled(value) for key, value in environ.items() if not key.startswith("BATON_REDIS__")})


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """What the page calls `baton` with."""
    text = re.sub(r"\s#.*", "", "\n".join(blocks("bash")).replace("\\\n", " "))
    code = text.splitlines() + re.findall(r"`([^`\n]+)`", PAGE)
    found = [re.search(r"(?:^|\s)baton ((?:up|status|chat|drain|keys)\b[^;&|]*)", line) for line in code]
    return [shlex.split(one[1]) for one in found if one is not None]


def test_the_example_of_a_node_is_a_configuration_whose_workers_have_devices_of_their_own() -> None:
    plan = Plan(Wishes(config=EXAMPLE), {})
    settings = plan.config.scenarios["chat"]
    starts = plan.starts(8000, [9], 8010)
    assert sum(plan.needs(start) for start in starts) == len(plan.devices.ids) == 8
    assert plan.devices.kind == "npu"
    assert {start.role for start in starts} == {*map(Role, WORKERS), Role.MONITOR, Role.GATEWAY}
    options = read_options(settings.engine_options)
    assert (settings.engine, options.block_size, options.dtype) == ("vllm", 128, "bfloat16")
    assert settings.devices_per_worker == options.tensor_parallel_size * options.pipeline_parallel_size
    additional = options.args["additional_config"]
    assert additional == {"enable_kv_nz": False, "recompute_scheduler_enable": False, "enable_reduce_sample": False}
    assert all(f"`args.additional_config.{name}`" in PAGE for name in additional)


def test_the_example_may_be_switched_to_mooncake() -> None:
    assert load(EXAMPLE, {"BATON_KV__MOONCAKE": "ascend"}).kv.mooncake == "ascend"
    with pytest.raises(ConfigError):
        load(EXAMPLE, {"BATON_KV__MOONCAKE": "hccs"})


def test_the_override_changes_services_that_exist_and_all_of_them_serve_the_same() -> None:
    assert set(OVERRIDE) < set(BASE)
    texts = [(FOLDER / "compose.ascend.yaml").read_text(), (REPOSITORY / "compose.yaml").read_text()]
    assert len({yaml.safe_load(text)["version"] for text in texts}) == 1
    scenarios = [configuration(name).scenarios["chat"] for name in ("gateway", "monitor", *WORKERS)]
    assert all(one == scenarios[0] for one in scenarios)
    options = read_options(scenarios[0].engine_options)
    assert (scenarios[0].engine, scenarios[0].model, options.block_size) == ("vllm", "/models/m", 128)
    for name in WORKERS:
        config = configuration(name)
        seen = OVERRIDE[name]["environment"]["ASCEND_RT_VISIBLE_DEVICES"].split(",")
        assert seen == [str(one) for one in range(options.tensor_parallel_size)], "a container counts its own from 0"
        assert config.kv.staging_mb > configuration("gateway").kv.staging_mb
        assert OVERRIDE[name]["image"] == "baton-ascend"
        assert {"read_only", "shm_size", "group_add", "ulimits"} < set(OVERRIDE[name])


def test_no_two_containers_have_the_same_npu() -> None:
    own = [set(OVERRIDE[name]["devices"]) - SHARED_DEVICES for name in WORKERS]
    assert all(set(OVERRIDE[name]["devices"]) > SHARED_DEVICES for name in WORKERS)
    assert all(
        len(devices) == len(OVERRIDE["prefill"]["environment"]["ASCEND_RT_VISIBLE_DEVICES"].split(","))
        for devices in own
    )
    assert len(set().union(*own)) == sum(map(len, own))
    assert all(re.fullmatch(r"/dev/davinci\d", one) for devices in own for one in devices)


def test_the_driver_of_the_node_and_the_models_are_mounted_into_each_worker() -> None:
    for name in WORKERS:
        mounts = dict(filled(one).rsplit(":", 2)[:2] for one in OVERRIDE[name]["volumes"])
        assert mounts.pop("/data/models") == "/models"
        assert all(source == target for source, target in mounts.items())
        assert {"/usr/local/Ascend/driver/lib64", "/usr/local/bin/npu-smi", "/usr/local/dcmi"} < set(mounts)
        assert all(path in PAGE for path in mounts if "hccn_tool" not in path)
    assert filled(OVERRIDE["gateway"]["volumes"][0]) == "/data/models:/models:ro"


def test_the_image_is_built_from_files_that_exist_and_on_the_release_that_is_known() -> None:
    build = OVERRIDE["prefill"]["build"]
    assert (REPOSITORY / build["context"] / build["dockerfile"]) == FOLDER / "Dockerfile"
    copied = [name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []
    [release] = re.findall(r"^ARG VLLM_ASCEND=v(\S+)$", DOCKERFILE, re.MULTILINE)
    assert release.partition(".post")[0] in ASCEND
    assert "FROM quay.io/ascend/vllm-ascend:${VLLM_ASCEND}${CHIP}\n" in DOCKERFILE
    assert f"quay.io/ascend/vllm-ascend:v{release}" in PAGE
    arguments = set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE)) | {
        "PIP_INDEX_URL"
    }  # pip reads that one itself
    assert set(build["args"]) <= arguments
    assert set(re.findall(r"--build-arg (\w+)", PAGE)) <= arguments


def test_what_the_image_lacks_is_pinned_and_is_what_baton_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {found[0].lower() for line in lines if (found := re.match(r"[\w.-]+", line))}
    pinned = {line.partition("==")[0].lower() for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    needed = {
        re.split(r"[\[;]", one)[0].strip()
        for one in [*project["dependencies"], *project["optional-dependencies"]["local"]]
    }
    assert wanted <= pinned
    assert wanted <= needed
    assert {"nats-py", "redis", "google-re2"} < wanted


def test_the_entry_point_is_valid_and_becomes_its_command() -> None:
    done = subprocess.run(
        [FOLDER / "entrypoint.sh", "sh", "-c", 'echo "$LD_LIBRARY_PATH" "$0"', "one"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/usr/local/Ascend/driver/lib64:" in done.stdout
    assert done.stdout.endswith(" one\n")


def test_every_table_of_settings_on_the_page_loads(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        for settings in load(path, {}).scenarios.values():
            read_options(settings.engine_options)


def test_every_command_of_baton_on_the_page_is_one() -> None:
    ours = commands()
    assert ["up", "--config", "deploy/ascend/baton.atlas.toml"] in ours
    assert ["up", "--config", "/etc/baton/baton.atlas.toml"] in ours
    for words in ours:
        parsed = _parser().parse_args(words)
        assert getattr(parsed, "config", None) is None or parsed.config.name == EXAMPLE.name


def test_every_module_file_and_variable_on_the_page_exists() -> None:
    for name in re.findall(r"python -m ([\w.]+)", PAGE):
        assert (REPOSITORY / name.replace(".", "/")).exists()
    for name in re.findall(r"(?:^|[\s(`])((?:\.\./)?(?:deploy|docs)/[\w./-]+\.\w+)", PAGE):
        assert (REPOSITORY / name.removeprefix("../")).exists(), name
    environ = dict(re.findall(r"(BATON_[A-Z]+__\w+)=(\S+)", PAGE))
    assert len(environ) > 4
    assert load(EXAMPLE, environ).kv.advertise == "10.0.0.2"
    named = set(re.findall(r"`((?:kv|instance|monitor|scenario|fleet|nats|redis)\.[a-z_]+)", PAGE))
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert [one for one in named if f"`{one}" not in page] == []


def test_the_page_is_linked_from_where_people_look() -> None:
    assert "(docs/ascend.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "(ascend.md#" in (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line.startswith("#")}
    pages = [
        PAGE,
        *((REPOSITORY / "docs" / name).read_text() for name in ("deployment.md", "configuration.md", "operations.md")),
    ]
    linked = set(re.findall(r"ascend\.md#([\w-]+)", "".join(pages))) | set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert linked - headings == set()
