"""An import gives what transformers reads from the same file, once, or nothing at all."""

import threading
from hashlib import sha256
from pathlib import Path

import pytest
from tqdm import tqdm

from shared.errors import ConfigError
from shared.models import importing, known, resolve
from shared.models.importing import ImportFailed, import_model, main
from shared.models.known import KNOWN, Known, imported, models_directory
from shared.text import open_tokenizer
from tests.unit.models import gguf_files

tqdm.monitor_interval = 0  # its watching thread would outlive the test


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf_files.write(path)
    return path


@pytest.fixture
def assembled(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A known model `tiny`, with an empty cache; the places where its file was assembled."""
    monkeypatch.setenv("BATON_CACHE_DIR", str(tmp_path / "cache"))
    digest = sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, "tiny", Known("tiny", "tiny_model_package", "tiny-model-package", digest, 1_000_000))
    return gguf_files.package(monkeypatch, source)


def files_below(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_weights_and_config_are_those_that_transformers_reads_from_the_file(
    assembled: list[Path], source: Path
) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    directory = import_model("tiny")
    ours = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    ignored = {"architectures", "quantization_config", "_name_or_path", "unk_token_id", "_model_name_or_path"}
    ignored |= {"query_pre_attn_scalar"}  # no key of the file; transformers takes 256, the head size of its Gemmas
    mine, other = ours.config.to_dict(), theirs.config.to_dict()
    assert {name for name in mine | other if mine.get(name) != other.get(name)} <= ignored


def test_the_tokenizer_is_the_one_that_transformers_makes_of_the_file(assembled: list[Path], source: Path) -> None:
    import transformers

    directory = import_model("tiny")
    theirs = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    ours = open_tokenizer(resolve(str(directory), "torch", {}))
    for text in ["abc ab  a", "\n\nb<b>é 日", "<bos>a<eos>", "   abcabc\n", ""]:
        for special in (True, False):
            ids = ours.encode(text, special=special)
            assert ids == theirs(text, add_special_tokens=special).input_ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_an_imported_model_is_resolved_by_name(assembled: list[Path]) -> None:
    import_model("tiny")
    spec = resolve("tiny", "torch", {})
    assert (spec.name, spec.context, spec.bos_id, spec.eos_ids) == ("tiny", 128, 2, {1})
    assert spec.default_stop == ("\nUser:", "\nAssistant:")
    assert spec.sampling == {"temperature": 0.7, "top_k": 64, "top_p": 0.95}
    assert spec.chat_template.startswith("{{ bos_token }}")


def test_only_the_first_of_several_imports_does_the_work(assembled: list[Path]) -> None:
    threads = [threading.Thread(target=import_model, args=("tiny",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(assembled) == 1
    assert imported("tiny") == models_directory() / "tiny"


def test_a_failed_import_leaves_nothing_and_can_be_repeated(
    assembled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(importing, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            import_model("tiny")
    assert imported("tiny") is None
    assert files_below(models_directory()) == set()
    assert import_model("tiny") == imported("tiny")


def test_what_a_killed_import_left_is_removed_by_the_next(assembled: list[Path]) -> None:
    left = models_directory() / ".tiny.part-12345"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    import_model("tiny")
    assert not left.exists()


def test_a_directory_of_an_older_format_is_made_anew(assembled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(importing, "FORMAT", 0)
        import_model("tiny")
    assert imported("tiny") is None
    import_model("tiny")
    assert imported("tiny") is not None
    assert len(assembled) == 2


def test_a_file_with_another_digest_is_refused(assembled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "tiny", Known("tiny", "tiny_model_package", "tiny-model-package", "00" * 32, 1))
    with pytest.raises(ImportFailed, match="digest"):
        import_model("tiny")
    assert files_below(models_directory()) == set()


def test_a_full_disk_is_said_before_anything_is_written(assembled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "tiny", Known("tiny", "tiny_model_package", "tiny-model-package", "00", 1 << 62))
    with pytest.raises(ImportFailed, match="BATON_CACHE_DIR"):
        import_model("tiny")
    assert assembled == []


def test_a_file_of_another_architecture_is_refused(assembled: list[Path], tmp_path: Path) -> None:
    from shared.models.gguf import Gguf

    gguf_files.write(tmp_path / "other.gguf", architecture="llama")
    with pytest.raises(ValueError, match="only gemma3"):
        Gguf(tmp_path / "other.gguf")


def test_the_command_prints_where_the_model_is(assembled: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(models_directory() / "tiny")
    assert "importing the model tiny (once)" in shown.err
    assert main(["nobody"]) == 1
    assert "no model that Baton knows" in capsys.readouterr().err
    assert main([]) == 2


def test_a_package_that_is_not_installed_is_said_with_the_remedy(
    assembled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tiny-model-package, which is not installed: pip install"):
        resolve("tiny", "torch", {})


def test_an_import_that_fails_in_its_process_is_a_configuration_error(
    assembled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tiny` is known in this process only, so the process that is to import it refuses."""
    monkeypatch.setattr(known, "find_spec", lambda _: True)
    with pytest.raises(ConfigError, match="exit status 1"):
        resolve("tiny", "torch", {})
