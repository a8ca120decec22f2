"""The order of the commands, choices, what a shell completes, and which outputs may be addresses."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.models import OptionInfo

from distill.cli import app
from distill.commands.options import complete_comparison, complete_device, complete_distortion, complete_recipe
from distill.terminal.console import run_cli
from tests.helpers.imports import ROOT


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word, by a process as a shell starts it."""
    environment = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "distill.cli"],
        cwd=ROOT, env={**os.environ, "_POCKETIQA_COMPLETE": "complete_bash", **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.split()


def test_a_shell_completes_commands_choices_and_names():
    assert completed("pocketiqa", "fit") == ["fit-teacher", "fit-look", "fit-pairs", "fit-types"]
    assert completed("pocketiqa", "score", "--format", "") == ["table", "csv", "jsonl", "json", "parquet"]
    assert "dp_iqa" in completed("pocketiqa", "label", "pool", "--teacher", "d")


def test_names_are_completed_by_kind():
    assert complete_recipe("quick") == ["quickstart"]
    assert complete_recipe("label_eff") == []  # a study
    assert complete_comparison("") == ["biq2021_gains", "biq2021_results"]
    assert complete_distortion("gaussian_b") == ["gaussian_blur"]
    assert complete_device("c") == ["cpu", "cuda"]


def test_a_shell_can_be_told():
    # typer asks which shell its parent is, so a bash must be the parent whoever runs the tests; a bash whose last
    # command this were would be replaced by it.
    told = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m distill.cli --show-completion; exit $?"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")
    assert "_POCKETIQA_COMPLETE" in told.stdout


def test_commands_come_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]):
    assert run_cli(app, []) == 0
    listed = re.findall(r"^│ (\S+)  ", capsys.readouterr().out, re.M)
    order = [
        "score",
        "run",
        "pool",
        "distort",
        "fit-teacher",
        "label",
        "fuse",
        "audit",
        "distill",
        "export",
        "evaluate",
    ]
    assert [name for name in listed if name in order] == order


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["score", "a.jpg", "--format", "xml"], "'table', 'csv', 'jsonl', 'json', 'parquet'"),
        (["evaluate", "pocket-m", "--on", "csv:a.csv", "--split", "tset"], "'test', 'validation', 'train', 'all'"),
        (["fuse", "a", "--out", "b", "--calibrate", "x"], "'auto', 'logistic', 'isotonic', 'quantile', 'none'"),
        (["fuse", "a", "--out", "b", "--split", "test"], "'validation', 'train'"),
        (["overlap", "a", "b", "--split", "x"], "'test', 'validation', 'train', 'all'"),
    ],
)
def test_another_choice_is_a_usage_error_that_names_them(
    words: list[str], choices: str, capsys: pytest.CaptureFixture[str]
):
    assert run_cli(app, words) == 2
    printed = capsys.readouterr().err
    assert choices in printed
    assert "Value error" not in printed
    assert printed.count("\n") == 1


def test_help_shows_the_choices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run_cli(app, ["score", "--help"]) == 0
    assert "<table|csv|jsonl|json|parquet>" in capsys.readouterr().out


# Options that name what is read.
INPUTS = {
    "--runtime", "--pairs", "--regions", "--images", "--near", "--trained-on", "--interval-from", "--calibration",
    "--root", "--brisque", "--intervals", "--on",
}  # fmt: skip
INTO_STORES = {(name, "--out") for name in ("pool", "regions", "label", "label-regions", "fuse", "export")}


def path_options() -> Iterator[tuple[str, str]]:
    """Command and spelling of every option whose value is a path."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        for parameter in inspect.signature(command.callback).parameters.values():
            kinds, *infos = get_args(parameter.annotation) or (None,)
            for info in infos:
                if isinstance(info, OptionInfo) and (kinds is Path or Path in _parts(kinds)):
                    # With ``Annotated``, typer takes the first spelling for the default.
                    words = (info.default, *(info.param_decls or ()))
                    given = [word for word in words if isinstance(word, str) and word.startswith("--")]
                    yield name, (given or ["--" + parameter.name.replace("_", "-")])[0]


def _parts(kinds: object) -> set[object]:
    return {part for one in get_args(kinds) for part in (one, *get_args(one))}


OUTPUTS = sorted(
    (command, option)
    for command, option in path_options()
    if option not in INPUTS and (command, option) not in {("intervals", "--scores"), ("calibrate", "--scores")}
)


def test_every_option_of_a_path_is_an_input_or_an_output():
    assert {option for _, option in OUTPUTS} == {
        "--out", "--page", "--gallery", "--copy-to", "--move-to", "--link-to", "--picture", "--map", "--scores",
        "--features", "--runs", "--environment",
    }  # fmt: skip
    assert len({command for command, _ in OUTPUTS}) > 25
    assert set(OUTPUTS) >= INTO_STORES


def test_no_output_becomes_a_local_folder_named_like_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for command, option in OUTPUTS:
        for words in ([option, "s3://bucket/x"], [f"{option}=gs://bucket/x"]):
            if (command, option) in INTO_STORES:
                continue
            assert run_cli(app, [command, *words]) == 1, (command, option)
            told = capsys.readouterr().err
            assert re.search(rf"{option}: '(s3|gs)://bucket/x' is an address, and {command} writes local paths", told)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_an_earlier_version_made_is_never_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    for command, option in sorted(INTO_STORES):
        assert run_cli(app, [command, option, "s3://bucket/x"]) == 1
        assert "there is a local file or folder 's3:'" in capsys.readouterr().err
    assert list((tmp_path / "s3:").iterdir()) == []
