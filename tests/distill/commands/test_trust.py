"""``trust`` as a command."""

from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


def test_models_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_photographs(tmp_path / "photographs", images=1, max_side=96)
    words = ("trust", "tests.teachers.test_plain:darkness", "--on", tmp_path / "photographs", "--test", "views")
    assert pocketiqa(*words, "--out", tmp_path / "page.html") == 0
    assert "Crops" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("page.*")} == {"page.html", "page.json", "page.md", "page.scores"}
    assert pocketiqa(*words, "--out", tmp_path / "page.html") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert pocketiqa(*words, "--out", tmp_path / "page.html", "--overwrite") == 0


def test_photographs_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("trust", "pocket-s", "--out", tmp_path / "page.html") == 1
    assert "--on" in capsys.readouterr().err
