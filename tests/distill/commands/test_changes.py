"""The commands on changes are listed, and start without what only training needs."""

import pytest

from distill.cli import app
from distill.terminal.console import run_cli


@pytest.mark.parametrize("command", ["compare-folders", "frames"])
def test_the_help_names_the_options_and_what_the_exit_status_means(command: str, capsys: pytest.CaptureFixture[str]):
    assert run_cli(app, [command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status 1" in text
    assert all(option in text for option in ("--model", "--out", "--overwrite"))


def test_words_that_are_missing_are_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert run_cli(app, ["compare-folders", "one"]) == 2
    assert "Missing argument 'after'" in capsys.readouterr().err
