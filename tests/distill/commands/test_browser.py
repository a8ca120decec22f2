"""``web`` as a stranger would try it."""

from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from students.shipped import QUANTISED


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run_cli(app, ["web", *map(str, words)]) != 0
    return " ".join(capsys.readouterr().err.split())


def test_without_the_runtime_it_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distill.browser.runtime_files._CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "--out", tmp_path / "site", "--model", QUANTISED[-1])
    assert "npm pack onnxruntime-web@" in said
    assert "--runtime" in said
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "missing.onnx"], "no model at missing.onnx"),
        (["--model", "."], "export its student first"),
        (["--model", QUANTISED[-1], "--out", "taken"], "not empty and was not written by pocketiqa"),
        (["--model", QUANTISED[-1], "--out", "s3://bucket/site"], "is an address"),
        (["--model", QUANTISED[-1], "--out", "file"], "is a file"),
    ],
)
def test_what_cannot_be_is_named(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    from distill.browser.runtime_files import Runtime

    monkeypatch.setattr("distill.browser.runtime_files.read_runtime", lambda path: Runtime("1", b"", b""))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    given = words if "--out" in words else [*words, "--out", "site"]
    assert message in refused(capsys, *given)
    assert not (tmp_path / "site").exists()
