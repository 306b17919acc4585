"""Rule files: who wins when they are looked at and reloaded at once."""

from pathlib import Path

import pytest

from services.gateway.content.files import RuleFiles
from services.gateway.content.rules import Rules
from shared.config import ModeratorSettings


def test_a_look_that_was_overtaken_by_a_reload_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "words"
    file.write_text("first\n")
    settings = ModeratorSettings(words={"c": str(file)})
    files = RuleFiles("house", settings)
    file.write_text("second one\n")
    newest: list[RuleFiles] = []
    read = RuleFiles._read

    def slowly(self: RuleFiles) -> Rules:
        made = read(self)
        if self is files:  # while this look builds its rules, the file changes again, and a reload takes that
            file.write_text("the third one\n")
            newest.append(RuleFiles("house", settings))
            files.take(newest[0])
        return made

    monkeypatch.setattr(RuleFiles, "_read", slowly)
    assert not files.refresh()
    assert files.rules is newest[0].rules
    monkeypatch.setattr(RuleFiles, "_read", read)
    file.write_text("a fourth one\n")
    assert files.refresh()
    assert files.rules is not newest[0].rules
