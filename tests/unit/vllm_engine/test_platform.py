"""Which versions may start: those released to be used together, and a sentence for each that does not fit."""

import dataclasses
import platform
import re
from pathlib import Path

import pytest

from shared.engine.vllm_engine.platform import ASCEND, PLUGINS, Found, check, faults, read
from shared.errors import ConfigError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "ascend.md"
NODE = Found("0.23.0+empty", "0.23.0.post1", "2.10.0+cpu", "2.10.0.post4", "9.1.0", (3, 12))


def but(**found: object) -> list[str]:
    """Say what is wrong with the image when this differs."""
    return faults(dataclasses.replace(NODE, **found))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["0.23.0", "0.23.1", "0.32.0", "0.32.0+cu129", "0.33.1.post1", "0.32.0rc1"])
def test_versions_that_the_adapter_is_written_for_may_start(version: str) -> None:
    assert faults(Found(version, torch="2.13.0")) == []


@pytest.mark.parametrize("version", ["0.22.1", "0.24.0", "0.3.2", "0.320.0", "1.32.0", "dev"])
def test_other_versions_are_named_with_those_that_would_do(version: str) -> None:
    [fault] = faults(Found(version))
    assert version in fault
    assert "0.23.x or 0.32.x or 0.33.x" in fault


def test_the_image_of_vllm_ascend_may_start() -> None:
    assert faults(NODE) == []
    assert (
        but(
            vllm_ascend="0.23.0",
            vllm="0.23.0",
            torch="2.10.0",
            plugins=",".join([*PLUGINS, "lora_filesystem_resolver"]),
        )
        == []
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("vllm", "0.32.0", "needs vLLM 0.23.0, and 0.32.0 was found"),
        ("vllm", "0.23.1", "needs vLLM 0.23.0, and 0.23.1 was found"),
        ("torch", "2.11.0", "needs torch 2.10.0, and 2.11.0 was found"),
        ("torch_npu", "2.10.0", "needs torch_npu 2.10.0.post4, and 2.10.0 was found"),
        ("torch_npu", "", "needs torch_npu 2.10.0.post4, and none was found"),
        ("cann", "9.0.1", "needs CANN 9.1.0, and 9.0.1 was found"),
        ("cann", "", "and none was found; source its set_env.sh first"),
        ("python", (3, 13), "needs Python 3.11 or later, below 3.13"),
        ("plugins", "lora_filesystem_resolver", "unset it, or add ascend"),
        ("plugins", "ascend", "add ascend_kv_connector, ascend_model, ascend_model_loader to it"),
        ("plugins", "", "unset it, or add ascend"),
        ("vllm_ascend", "0.23.0rc1", "vllm-ascend 0.23.0rc1 is not known"),
        ("vllm_ascend", "0.24.0rc1", "use 0.23.0"),
        ("vllm_ascend", "", "vLLM would not use the NPUs"),
    ],
)
def test_each_part_that_does_not_fit_is_named_alone(field: str, value: object, said: str) -> None:
    [fault] = but(**{field: value})
    assert said in fault


def test_all_that_does_not_fit_is_told_at_once() -> None:
    assert [fault.split(" needs ")[1].split()[0] for fault in but(vllm="0.32.0", torch="2.13.0", cann="8.5.1")] == [
        "vLLM",
        "torch",
        "CANN",
    ]


def test_without_vllm_the_engine_says_where_to_get_it() -> None:
    [fault] = faults(Found())
    assert "docs/ascend.md" in fault


@pytest.mark.parametrize("variable", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"])
def test_the_version_of_cann_is_read_where_its_environment_points(tmp_path: Path, variable: str) -> None:
    info = tmp_path / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir()
    info.write_text(
        "package_name=Ascend-cann-toolkit\nversion=9.1.0\ninnerversion=V100R001C25SPC001B212\narch=aarch64\n"
    )
    assert read({variable: str(tmp_path), "VLLM_PLUGINS": "ascend"}).cann == "9.1.0"
    assert read({variable: str(tmp_path / "elsewhere")}).cann == ""
    info.write_text("nothing of use\n")
    assert read({variable: str(tmp_path)}).cann == ""


def test_what_is_there_is_read_and_what_does_not_fit_raises() -> None:
    found = read({"VLLM_PLUGINS": "a"})
    assert found.torch.startswith("2.")
    assert found.plugins == "a"
    if wrong := faults(found):
        with pytest.raises(ConfigError) as raised:
            check({"VLLM_PLUGINS": "a"})
        assert raised.value.faults == wrong
    else:
        assert check({"VLLM_PLUGINS": "a"}) == found


def test_the_page_for_atlas_users_has_the_same_versions() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCS.read_text().splitlines()]
    table = {row[0]: row[1] for row in rows if len(row) == 3}
    for release, stack in ASCEND.items():
        assert re.search(rf"\b{re.escape(release)}\b", table["vllm-ascend"])
        assert (table["vLLM"], table["torch"], table["torch_npu"]) == (stack.vllm, stack.torch, stack.torch_npu)
        assert table["CANN"] == stack.cann
