"""``--max-pixels`` and the notes on what was not read, in every command that reads image files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.regions.store import RegionLabelStore
from pseudo_labels.store import LabelStore
from tests.helpers.encoders import picture


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photograph and one of 40,000 pixels, with leftovers and a shard beside them."""
    folder = tmp_path_factory.mktemp("photographs")
    Image.fromarray(picture(1, 100, 100)).save(folder / "small.png")
    Image.fromarray(picture(2, 200, 200)).save(folder / "large.png")
    (folder / "._small.png").write_bytes(b"\0\x05\x16\x07")
    (folder / "shard.tar").write_bytes(bytes(1024))
    lines = [f"{name},0.5" for name in ("small.png", "large.png")]
    (folder / "rated.csv").write_text("\n".join(["image,mos", *lines]))
    return folder


def test_score(photographs: Path, capsys: pytest.CaptureFixture[str]):
    words = ("score", photographs, "--model", "pocket-s", "--format", "jsonl")
    assert pocketiqa(*words, "--max-pixels", 39_999) == 1
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [(Path(row["path"]).name, row["status"]) for row in rows] == [
        ("large.png", "too_large"),
        ("small.png", "ok"),
    ]
    assert "above the limit of 39999" in rows[0]["reason"]
    notes = " ".join(printed.err.split())
    assert "left out by rule: 1 of ._*" in notes
    assert f"1 '{photographs}/*.tar'" in notes
    assert pocketiqa(*words, "--max-pixels", 40_000) == 0
    assert pocketiqa(*words, "--max-pixels", 0) == 1
    assert "max_pixels is 0" in capsys.readouterr().err


def test_evaluate(photographs: Path, tmp_path: Path):
    words = ("evaluate", "pocket-s", "--on", f"csv:{photographs / 'rated.csv'}")
    assert pocketiqa(*words, "--max-pixels", 39_999, "--out", tmp_path / "less.json") == 0
    assert pocketiqa(*words, "--max-pixels", 40_000, "--out", tmp_path / "all.json") == 0
    scored = [json.loads((tmp_path / f"{name}.json").read_text())["models"][0]["coverage"]["scored"] for name in
              ("less", "all")]  # fmt: skip
    assert scored == [1, 2]


def test_pool_and_label(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("pool", photographs, "--out", tmp_path / "pool", "--max-pixels", 40_000) == 0
    printed = capsys.readouterr()
    assert "2 images (2 ok) of 2 scenes" in printed.out
    notes = " ".join(printed.err.split())
    assert "left out by rule: 1 of ._*" in notes
    assert f"1 '{photographs}/*.tar'; name them as sources themselves" in notes
    words = ("label", tmp_path / "pool", "--teacher", "embedded", "--shards", 1)
    assert pocketiqa(*words, "--out", tmp_path / "less", "--max-pixels", 39_999) == 0
    statuses = LabelStore.open(tmp_path / "less").labels()["status"].to_pylist()
    assert sorted(statuses) == ["ok", "too_large"]


def test_regions_of_large_photographs_have_no_label(photographs: Path, tmp_path: Path):
    assert pocketiqa("pool", photographs, "--out", tmp_path / "pool") == 0
    words = ("regions", tmp_path / "pool", "--by", "grid:2x1", "--preview", 0, "--shards", 1)
    assert pocketiqa(*words, "--out", tmp_path / "regions") == 0
    words = ("label-regions", tmp_path / "pool", "--regions", tmp_path / "regions", "--shards", 1)
    words += ("--teacher", "crop:embedded", "--max-failed-fraction", 1)
    assert pocketiqa(*words, "--out", tmp_path / "less", "--max-pixels", 39_999) == 0
    rows = list(RegionLabelStore.open(tmp_path / "less").rows())
    assert sorted(row.status for row in rows) == ["ok", "ok", "too_large", "too_large"]
