"""Reading the configuration: defaults, file, environment, and every mistake in one error."""

import dataclasses
from pathlib import Path

import pytest

from shared.config import Config, Nats, ScenarioSettings, load
from shared.config.reader import variable
from shared.errors import ConfigError

CHAT = {"BATON_SCENARIO__CHAT__MODEL": "gemma-3-270m"}


def written(folder: Path, text: str) -> Path:
    path = folder / "baton.toml"
    path.write_text(text)
    return path


def faults(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return caught.value.faults


def test_nothing_given_is_a_whole_configuration() -> None:
    assert load(None, {}) == Config()
    assert load(None, {"PATH": "/bin", "BATON_STATE_DIR": "/var/x"}) == Config()


def test_the_contracts_example_is_read_as_written(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [nats]
        url = "nats://127.0.0.1:4222"
        [redis]
        url = "redis://127.0.0.1:6379/0"
        [gateway]
        host = "127.0.0.1"
        port = 8000
        [scenario.chat]
        model = "gemma-3-270m"
        engine = "torch"
        prefill = 2
        decode = 3
        ttft_slo_ms = 2000
        tpot_slo_ms = 200
        [scenario.chat.engine_options]
        dtype = "float32"
        prefill_ms = [0.0, 0.5, 3]
        """,
    )
    config = load(path, {})
    assert config.nats.url == "nats://127.0.0.1:4222"
    assert config.scenarios == {
        "chat": ScenarioSettings(
            model="gemma-3-270m",
            prefill=2,
            decode=3,
            engine_options={"dtype": "float32", "prefill_ms": [0.0, 0.5, 3]},
        )
    }


def test_a_variable_wins_over_the_file_and_makes_what_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, '[gateway]\nport = 8000\nhost = "::1"\n[scenario.my-chat]\nmodel = "a"\n')
    environ = {
        "BATON_GATEWAY__PORT": "9000",
        "BATON_SCENARIO__MY_CHAT__MODEL": "b",
        "BATON_SCENARIO__LONG__MODEL": "c",
        "BATON_SCENARIO__LONG__ENGINE": "sim",
    }
    config = load(path, environ)
    assert (config.gateway.port, config.gateway.host) == (9000, "::1")
    assert {name: scenario.model for name, scenario in config.scenarios.items()} == {"my-chat": "b", "long": "c"}


def test_engine_options_from_the_environment_are_toml_values_or_else_strings() -> None:
    options = {
        "DTYPE": ("float32", "float32"),
        "MAX_NUM_SEQS": ("8", 8),
        "CHUNKED": ("true", True),
        "PREFILL_MS": ("[0.0, 1, 2]", [0.0, 1, 2]),
        "QUOTED": ('"8"', "8"),
        "PATH": ("/a b/c", "/a b/c"),
        "TRICK": ("1\nother = 2", "1\nother = 2"),
        "EMPTY": ("", ""),
    }
    environ = {f"BATON_SCENARIO__CHAT__ENGINE_OPTIONS__{name}": text for name, (text, _) in options.items()}
    config = load(None, {**CHAT, **environ, "BATON_SCENARIO__CHAT__ENGINE_OPTIONS__DEEP__ER": "1"})
    expected = {name.lower(): value for name, (_, value) in options.items()}
    assert config.scenarios["chat"].engine_options == {**expected, "deep": {"er": 1}}


@pytest.mark.parametrize("password", ["12345", "true", "[1]", '"quoted"', "1.5", "nan", "ünïcode"])
def test_a_string_stays_the_string_that_was_given(password: str) -> None:
    config = load(None, {"BATON_NATS__USER": "7", "BATON_NATS__PASSWORD": password})
    assert (config.nats.user, config.nats.password) == ("7", password)


@pytest.mark.parametrize(("text", "keys"), [("a, b", ("a", "b")), ('["a", "b"]', ("a", "b")), ("7", ("7",)), ("", ())])
def test_a_list_of_strings_may_be_written_with_commas(text: str, keys: tuple[str, ...]) -> None:
    assert load(None, {"BATON_GATEWAY__API_KEYS": text}).gateway.api_keys == keys


def test_every_mistake_is_reported_at_once_with_what_to_do(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        unknown = 1
        redis = "redis://x"
        [nats]
        url = "http://x"
        prefix = "a.b"
        [gateway]
        prot = 8000
        port = 99999
        max_waiting = "many"
        [fleet]
        lease_ttl_s = nan
        attempts = 1.5
        [scenario.Bad_Name]
        model = "a"
        [scenario.chat]
        engine = "tensorflow"
        prefill = true
        """,
    )
    found = faults(path, {"BATON_NATS_URL": "nats://x:4222", "BATON_KV__PORT": "-1", "BATON_KV__": "1"})
    assert found == [
        "BATON_KV__ is no key; write BATON_SECTION__KEY",
        "BATON_NATS_URL is no key; did you mean BATON_NATS__URL?",
        (
            "unknown is no key; known here: "
            "fleet, gateway, instance, kv, moderation, monitor, nats, redis, scenario, telemetry, tenant"
        ),
        "nats.url: the value given is no URL of the form nats://host:port",
        "nats.prefix: 'a.b' must be one word of letters and digits",
        "redis is 'redis://x'; make it a table ([redis])",
        "gateway.prot is no key; did you mean port?",
        "gateway.port: 99999 is above 65535; give at most that",
        "gateway.max_waiting takes a whole number, and 'many' is not one",
        "fleet.lease_ttl_s: nan is not finite",
        "fleet.attempts takes a whole number, and 1.5 is not one",
        "kv.port: -1 is below 0; give at least that",
        "scenario.Bad_Name: the name must be lower-case letters, digits and inner hyphens",
        "scenario.chat.model is missing; set it in the file or as BATON_SCENARIO__CHAT__MODEL",
        "scenario.chat.engine: 'tensorflow' is none of torch, vllm, sim",
        "scenario.chat.prefill takes a whole number, and True is not one",
    ]


def test_settings_that_contradict_each_other_are_mistakes() -> None:
    environ = {
        "BATON_NATS__USER": "gateway",
        "BATON_NATS__CREDENTIALS__DECODE__USER": "decode",
        "BATON_NATS__CREDENTIALS__DECODE__PASSWORD": "secret",
        "BATON_FLEET__HEARTBEAT_S": "5",
        "BATON_INSTANCE__SCENARIO": "chat",
    }
    assert faults(None, environ) == [
        "nats.credentials needs nats.url; a server started by `baton up` makes its own",
        "nats.user and nats.password belong together; set both or neither",
        "fleet.heartbeat_s must be smaller than fleet.lease_ttl_s",
        "instance.scenario: there is no [scenario.chat]",
    ]


def test_a_file_that_cannot_be_read_or_parsed_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml", {}) == [
        f"{tmp_path}/none.toml cannot be read (No such file or directory); give --config a readable file"
    ]
    [fault] = faults(written(tmp_path, "[nats\n"), {})
    assert "is not valid TOML" in fault
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    [fault] = faults(tmp_path / "binary.toml", {})
    assert "is not valid TOML" in fault


@pytest.mark.parametrize(
    "url", ["nats://", "nats://host:99999", "nats://host:x", "host:4222", "redis://h:1", "nats://[::"]
)
def test_a_url_that_cannot_be_connected_to_is_refused_and_not_echoed(url: str) -> None:
    [fault] = faults(None, {"BATON_NATS__URL": url})
    assert fault == "nats.url: the value given is no URL of the form nats://host:port"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("nats://a:4222,", "has an empty place; write nats://a:port,nats://b:port"),
        ("nats://a:4222,b:4222", "is no URL of the form nats://host:port, several of them separated by commas"),
        ("nats://a:4222,ws://b:80", "mixes websocket and other URLs"),
    ],
)
def test_a_list_of_nats_servers_is_checked_one_by_one(url: str, fault: str) -> None:
    assert faults(None, {"BATON_NATS__URL": url}) == [f"nats.url: the value given {fault}"]


def test_the_servers_of_a_nats_cluster_are_told_apart_and_share_what_one_url_holds() -> None:
    nats = load(None, {"BATON_NATS__URL": "nats://me:p%40w@a:4222, nats://b:4222"}).nats
    assert nats.servers == ["nats://me:p%40w@a:4222", "nats://b:4222"]
    assert nats.credentials_for("decode") == ("me", "p@w")  # discovered servers have no URL with a password in it


def test_what_kubernetes_puts_into_the_environment_is_not_ours() -> None:
    environ = {"BATON_GATEWAY_PORT": "tcp://10.0.0.1:8000", "BATON_GATEWAY_SERVICE_HOST": "10.0.0.1"}
    assert load(None, environ) == Config()


def test_secrets_are_never_printed_nor_echoed() -> None:
    secret = "hunter2"
    environ = {
        "BATON_NATS__URL": f"nats://me:{secret}@host:4222",
        "BATON_NATS__USER": "me",
        "BATON_NATS__PASSWORD": secret,
        "BATON_NATS__CREDENTIALS__DECODE__USER": "decode",
        "BATON_NATS__CREDENTIALS__DECODE__PASSWORD": secret,
        "BATON_REDIS__URL": f"redis://:{secret}@host:6379/0",
        "BATON_GATEWAY__API_KEYS": secret,
    }
    assert secret not in repr(load(None, environ))
    broken = {**environ, "BATON_NATS__URL": f"ftp://me:{secret}@host", "BATON_REDIS__URL": secret}
    assert all(secret not in fault for fault in faults(None, broken))
    assert secret not in str(faults(None, {"BATON_GATEWAY__API_KEYS": f'["{secret}", 1]'}))


def test_a_role_has_its_own_credentials_or_the_common_ones() -> None:
    environ = {
        "BATON_NATS__URL": "nats://host:4222",
        "BATON_NATS__USER": "common",
        "BATON_NATS__PASSWORD": "c",
        "BATON_NATS__CREDENTIALS__DECODE__USER": "decode",
        "BATON_NATS__CREDENTIALS__DECODE__PASSWORD": "d",
    }
    nats = load(None, environ).nats
    assert nats.credentials_for("decode") == ("decode", "d")
    assert nats.credentials_for("gateway") == ("common", "c")
    assert Nats().credentials_for("gateway") == ("", "")


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().gateway.port = 1  # type: ignore[misc]


def test_every_key_has_a_variable_that_sets_it() -> None:
    for section in dataclasses.fields(Config):
        made = getattr(Config(), section.name)
        if section.name in ("scenario", "moderation", "tenant"):
            continue
        for key in dataclasses.fields(made):
            value = getattr(made, key.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                name = variable(f"{section.name}.{key.name}")
                read = getattr(getattr(load(None, {name: str(value)}), section.name), key.name)
                assert read == value, name


def test_an_advertised_address_is_a_host_with_or_without_a_port() -> None:
    for value in ("", "decode-7", "decode-7:41", "192.0.2.7:41", "[2001:db8::7]:41", "[2001:db8::7]"):
        assert load(None, {"BATON_KV__ADVERTISE": value}).kv.advertise == value
    for value in (":41", "host:0", "host:99999", "host:port", "tcp://host:1", "host/path", "2001:db8::7", "a b"):
        [fault] = faults(None, {"BATON_KV__ADVERTISE": value})
        assert fault.endswith("is no host, host:port, [v6] or [v6]:port"), value


def test_moderators_must_exist_and_have_what_their_kind_needs(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [scenario.chat]
        model = "a"
        moderate_prompt = ["house", "nobody"]
        moderate_answer = ["house"]
        [moderation.house]
        [moderation.judge]
        kind = "http"
        [moderation.mixed]
        kind = "http"
        url = "https://judge.example/v1/moderations"
        words = {Rude = "rude.txt", harassment = "/words.txt"}
        """,
    )
    with pytest.raises(ConfigError) as error:
        load(path, {})
    bad = "moderation.mixed.words.Rude: the name must be lower-case letters, digits and inner '-', '_' or '/'"
    assert bad in error.value.faults
    path.write_text(path.read_text().replace("Rude =", "rude ="))
    with pytest.raises(ConfigError) as error:
        load(path, {"BATON_MODERATION__HOUSE__ACTION": "flag"})
    assert error.value.faults == [
        "moderation.house has no rules; give it moderation.house.words or moderation.house.patterns",
        "moderation.judge.url is missing; set it to the service that judges",
        'moderation.mixed.words and moderation.mixed.patterns belong to kind = "rules"',
        "moderation.mixed.words.rude: 'rude.txt' is no absolute path",
        "scenario.chat.moderate_prompt: there is no [moderation.nobody]",
    ]
