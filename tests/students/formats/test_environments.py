"""Environments of converters: made by venv and pip, from a package that needs no network."""

import zipfile
from pathlib import Path

import pytest

from pseudo_labels.errors import OutputConflictError, PocketiqaError, WriteError
from students.formats.environments import FOLDER_VARIABLE, Environment
from students.formats.registry import LITERT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with one package of one line."""
    folder = tmp_path_factory.mktemp("packages")
    wheel, about = folder / "tiny_converter-1.0-py3-none-any.whl", "tiny_converter-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_converter.py", "FACTOR = 3\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-converter\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    pins = folder / "tiny.txt"
    pins.write_text("# pins\ntiny-converter==1.0\n")
    return Environment("tiny", (str(wheel),), pins, gigabytes=0.05)


@pytest.fixture(scope="module")
def made(tiny: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environments") / "tiny"
    assert not tiny.is_ready(folder)
    tiny.make(folder)
    return folder


def test_a_script_runs_alone_with_the_packages_of_its_environment(tiny: Environment, made: Path, tmp_path: Path):
    script, out = tmp_path / "script.py", tmp_path / "out.txt"
    script.write_text(
        "import importlib.util, pathlib, sys\nimport tiny_converter\n"
        "assert importlib.util.find_spec('students') is None and importlib.util.find_spec('numpy') is None\n"
        "pathlib.Path(sys.argv[1]).write_text(str(tiny_converter.FACTOR * 14))\n"
    )
    assert tiny.run(script, [str(out)], folder=made, seconds=60) == ""
    assert out.read_text() == "42"
    script.write_text("raise SystemExit('this student is too large')")
    assert tiny.run(script, [], folder=made, seconds=60) == "this student is too large"
    script.write_text("import time\ntime.sleep(60)")
    assert tiny.run(script, [], folder=made, seconds=1) == "it took more than 1 seconds"


def test_what_is_there_is_not_made_again_and_other_versions_are_refused(tiny: Environment, made: Path, tmp_path: Path):
    before = (made / "manifest.json").stat().st_mtime_ns
    tiny.make(made)
    assert tiny.is_ready(made)
    assert (made / "manifest.json").stat().st_mtime_ns == before
    pins = tmp_path / "pins.txt"
    pins.write_text("tiny-converter==2.0\n")
    later = Environment("tiny", tiny.packages, pins, gigabytes=0.05)
    assert not later.is_ready(made)
    with pytest.raises(OutputConflictError, match=r"for other versions: remove it, or name another folder with --env"):
        later.make(made)


def test_a_disk_that_is_too_small_and_packages_that_are_not_there_are_named(tiny: Environment, tmp_path: Path):
    large = Environment("large", tiny.packages, tiny.pins, gigabytes=1e9)
    with pytest.raises(WriteError, match=r"GB left, and the environment of large takes about 1e\+09: name a folder on"):
        large.make(tmp_path / "large")
    with pytest.raises(PocketiqaError, match=r"tiny's converter is not at .*: --environment .* makes it there \(about"):
        tiny.run(tmp_path / "script.py", [], folder=tmp_path / "nothing", seconds=1)


def test_the_usual_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert LITERT.usual_folder == tmp_path / "litert"
    assert not LITERT.is_ready()
    assert f"--environment {tmp_path / 'litert'} makes it there (about 7 GB" in LITERT.missing()


def test_pins_name_what_is_asked_for_and_no_host():
    pinned = LITERT.pinned()
    assert {*LITERT.packages, "torch", "litert-converter"} <= set(pinned)
    assert all(version[0].isdigit() for version in pinned.values())
    assert "://" not in LITERT.pins.read_text(encoding="utf-8")
