"""The image of the server: linted, and with options that the command has."""

import json
import re
import subprocess
import sys
from pathlib import Path

from distill.cli import app
from distill.terminal.console import run_cli
from tests.helpers.imports import ROOT

FILE = Path(ROOT) / "Dockerfile"


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_options_are_those_of_the_command(capsys):
    text = FILE.read_text()
    words = [word for line in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.M) for word in json.loads(line)]
    assert words[:2] == ["pocketiqa", "serve"]
    assert run_cli(app, ["serve", "--help"]) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word for word in words if word.startswith("--")} <= known
