"""The scripts of the page are those that ``make web`` builds out of ``web/src``."""

import shutil
import subprocess
from pathlib import Path

import pytest

from distill.browser.site import BUILT
from tests.helpers.imports import ROOT


def test_the_scripts_in_the_package_are_built_from_these_sources(tmp_path: Path):
    if shutil.which("node") is None or not (ROOT / "web/node_modules/vite").is_dir():
        pytest.skip("no node, or the packages of web/ are not installed: make web")
    subprocess.run(["node", "build.mjs", "page", str(tmp_path)], cwd=ROOT / "web", check=True)
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == (BUILT / file.name).read_bytes(), f"{file.name}: run make web and commit it"
    assert len(list(tmp_path.iterdir())) == len(list(BUILT.glob("*.js")))
