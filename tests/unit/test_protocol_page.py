"""docs/protocol.md names everything that crosses between processes, as it is."""

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from shared import bus, keys
from shared import messages as defined
from shared.errors import Code
from shared.messages import MAX_TOKENS_BYTES, VERSION
from shared.subjects import GATEWAYS, Subjects
from tests.wire.samples import TYPES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
PARTS = {
    name: kind
    for name, kind in vars(defined).items()
    if inspect.isclass(kind)
    and issubclass(kind, defined.Value)
    and kind not in (defined.Value, defined.Message)
    and kind.__struct_config__.tag is None
}
DOCUMENTED = {**{tag: kind for tag, kind in TYPES.items() if tag != "instance.record"}, **PARTS}


def section(name: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^###+ `{re.escape(name)}`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/protocol.md has no section `{name}`"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The body of the first table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def methods() -> dict[str, str]:
    """Every subject as the page writes it."""
    result = {}
    for name, function in inspect.getmembers(Subjects(), inspect.ismethod):
        if name.startswith("_"):
            continue
        result[name] = function(*(f"<{argument}>" for argument in inspect.signature(function).parameters))
    return result


def test_every_subject_is_named_with_its_function_and_nothing_else_is() -> None:
    table = rows(PAGE.split("## Subjects")[1].split("### Direct")[0])
    assert {row[0].strip("`"): row[1].strip("`") for row in table} == methods()
    assert f"queue group `{GATEWAYS}`" in PAGE


def test_every_message_of_a_subject_is_described() -> None:
    table = rows(PAGE.split("## Subjects")[1].split("### Direct")[0])
    named = {tag for row in table for cell in row[3:] for tag in re.findall(r"`([a-z_.]+)`", cell)}
    assert named <= set(DOCUMENTED)
    only_inside_others = {"finished", "failed"}
    assert set(TYPES) - {"instance.record"} - named == only_inside_others


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_field_is_described_in_its_order_with_its_default(name: str) -> None:
    kind = DOCUMENTED[name]
    table = rows(section(name))
    assert [row[0].strip("`") for row in table] == list(kind.__struct_fields__)
    for row, field in zip(table, msgspec.structs.fields(kind), strict=True):
        assert ("=" in row[1]) is not field.required, f"{name}.{field.name}: has it a default or not?"


def test_nothing_is_described_that_does_not_exist() -> None:
    headings = set(re.findall(r"^###+ `([^`]+)`$", PAGE, re.MULTILINE))
    assert headings == set(DOCUMENTED)


def test_every_redis_key_has_type_ttl_and_writer() -> None:
    table = rows(PAGE.split("## Redis keys")[1])
    expected = {
        keys.lease("<name>"),
        keys.FENCE,
        keys.BOOT,
        keys.EVENTS,
        keys.instance("<id>"),
        keys.scenario_map("<scenario>"),
    }
    expected |= {keys.api_key("<id>"), keys.API_KEYS, keys.KEYS_HEARD}
    expected |= {keys.tenant_rates("<tenant>"), keys.tenant_streams("<tenant>")}
    assert {row[0].strip("`") for row in table} == expected
    public = {name for name, value in vars(keys).items() if not name.startswith("_") and name != "Final"}
    fleet = {"lease", "FENCE", "BOOT", "EVENTS", "instance", "scenario_map", "RECORD_TTL_MS"}
    tenancy = {"api_key", "API_KEYS", "KEYS_HEARD", "tenant_rates", "tenant_streams"}
    roots = {"ROOT", "ROOT_IN_CLUSTER"}
    assert public == fleet | tenancy | roots, "a key is not described"
    assert all(name.startswith(keys.ROOT) for name in expected)
    assert f"`{keys.ROOT_IN_CLUSTER}`" in PAGE
    assert all(len(row) == 5 and all(row) for row in table)
    assert f"{keys.RECORD_TTL_MS // 1000} s" in PAGE


def test_every_code_and_every_limit_is_the_real_one() -> None:
    codes = PAGE.split("### Codes")[1].split("## Redis")[0]
    assert set(re.findall(r"`([a-z_]+)`", codes)) - {"failed", "rejected"} == {code.value for code in Code}
    limits = PAGE.split("### Limits")[1].split("### Headers")[0]
    for number in (bus.RESERVED_BYTES, f"{MAX_TOKENS_BYTES:,}"):
        assert str(number) in limits
    assert f"`VERSION` ({VERSION})" in PAGE
