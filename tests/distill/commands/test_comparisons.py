"""``overlap``, ``stress`` and ``compare`` as commands."""

import json
from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.pool import build_pool
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of four photographs, and a benchmark of the last three and one more."""
    folder = tmp_path_factory.mktemp("data")
    paths = write_photographs(folder / "photographs", images=5)
    build_pool([str(path) for path in paths[:4]], folder / "pool")
    lines = [f"{path},{number / 5}" for number, path in enumerate(paths[1:])]
    (folder / "rated.csv").write_text("\n".join(["image,mos", *lines]))
    return folder


def test_overlap_finds_equal_pictures_without_a_model(data: Path, tmp_path: Path):
    out = tmp_path / "overlap"
    words = ("overlap", data / "pool", f"csv:{data / 'rated.csv'}", "--out", out, "--by", "layout")
    assert pocketiqa(*words) == 0
    record = json.loads((out / "overlap.json").read_text())
    assert sum(image["cosine"] > 0.999 for image in record["images"]) == 3
    assert (out / "overlap.html").is_file()
    assert pocketiqa(*words, "--above", 0.9) == 1  # another threshold is another result


def test_a_cosine_out_of_range_is_refused_before_work(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ("overlap", data / "pool", f"csv:{data / 'rated.csv'}", "--out", tmp_path / "overlap", "--above", 1.5)
    assert pocketiqa(*words) == 1
    assert "1.5" in capsys.readouterr().err
    assert not (tmp_path / "overlap").exists()


def test_stress_refuses_to_replace_a_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "stress.json"
    out.write_text("mine")
    assert pocketiqa("stress", data / "photographs", "--out", out) == 1
    assert out.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err


def test_compare_names_the_recipes_that_are_none(capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("compare", "quickstart") == 1
    assert "quickstart" in capsys.readouterr().err
