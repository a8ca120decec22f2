"""The order of the commands, choices, and what a shell completes."""

import os
import re
import subprocess
import sys

import pytest

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
    assert completed("pocketiqa", "fit") == ["fit-teacher", "fit-look"]
    assert completed("pocketiqa", "score", "--format", "") == ["table", "csv", "jsonl", "json", "parquet"]
    assert "dp_iqa" in completed("pocketiqa", "label", "pool", "--teacher", "d")


def test_names_are_completed_by_kind():
    assert complete_recipe("quick") == ["quickstart"]
    assert complete_recipe("label_eff") == []  # a study
    assert complete_comparison("") == ["biq2021_results"]
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
