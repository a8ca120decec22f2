"""``score`` with regions and drawings: rows in all formats, sources, pictures, what is refused."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.cli import app
from distill.scoring import scored_regions
from distill.terminal.console import run_cli
from pseudo_labels.files import read_record
from pseudo_labels.regions.masks import encode
from students.runtime import Scorer
from tests.helpers.training import texture
from tests.teachers.sam_iqa.tiny_sam import save_sam

ROOT = Path(__file__).parents[3]
COLUMNS = ["path", "score", "status", "reason", "region", "quality", "importance", "box", "area"]
MODEL = ["model", "model_sha256", *(() if Scorer("pocket-s").contract.types is None else ("type", "strength"))]


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, size in enumerate(((96, 112), (150, 100), (64, 64))):
        Image.fromarray(texture(number, 5, size)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


def score(folder: Path, *words: object, out: str = "o.jsonl") -> tuple[int, list[dict[str, Any]]]:
    """Exit status, and records of the rows."""
    path = folder.parent / out
    status = pocketiqa("score", folder, "--model", "pocket-s", "--out", path, *words)
    if not path.exists():
        return status, []
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return status, [dict(row) for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        return status, pq.read_table(path).to_pylist()
    if path.suffix == ".json":
        return status, read_record(path, what="scores")["rows"]
    return status, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("out", ["o.jsonl", "o.csv", "o.json", "o.parquet"])
def test_each_format_has_a_row_a_region(folder: Path, out: str):
    status, rows = score(folder, "--regions", "grid:2x1", out=out)
    assert status == 0
    assert len(rows) == 9
    assert all(sorted(row) == sorted(COLUMNS + MODEL) for row in rows)
    image, left, right = rows[:3]
    expected = Scorer("pocket-s").score(folder / "0.png", regions=[(0, 0, 56, 96), (56, 0, 56, 96)])
    assert float(image["score"]) == pytest.approx(expected.score, abs=1e-6)
    assert [image[name] or None for name in COLUMNS[4:]] == [None] * 5
    for number, (row, region) in enumerate(zip((left, right), expected.regions, strict=True)):
        assert row["path"] == image["path"]
        assert (row["score"] or None, row["status"], int(row["region"])) == (None, "ok", number)
        values = float(row["quality"]), float(row["importance"]), float(row["area"])
        assert values == pytest.approx((region.quality, region.importance, 0.5), abs=1e-6)
        assert (row["box"] if out != "o.csv" else [int(one) for one in row["box"].split()]) == list(region.box)


def test_the_table_has_them_too(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("score", folder / "0.png", "--regions", "grid:2x1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["image", "score", *COLUMNS[4:], "type", "strength", "status", "reason"]
    assert lines[4][0] == "1"
    assert lines[4][3:8] == ["56", "0", "56", "96", "0.500"]


def test_without_regions_nothing_has_changed(folder: Path):
    _, rows = score(folder)
    assert [list(row) for row in rows] == [COLUMNS[:4] + MODEL] * 3


def test_boxes_and_masks_of_a_file_belong_to_the_images_they_name(folder: Path):
    mask = np.zeros((150, 100), bool)
    mask[20:40, 10:90] = True
    records = [
        {"image": "0.png", "box": [0, 0, 50, 50]},
        {"image": "1", "rle": {"size": [150, 100], "counts": encode(mask)}},
        {"image": "1", "rle": {"size": [100, 150], "counts": encode(mask)}},
        {"image": "1", "rle": encode(mask)[:-1] + "0"},
        {"image": "1", "box": [100, 0, 9, 9]},
        {"image": "nowhere", "box": [0, 0, 9, 9]},
    ]
    (folder.parent / "r.json").write_text(json.dumps(records))
    status, rows = score(folder, "--regions", folder.parent / "r.json", "--workers", 2)
    assert status == 1  # some regions have no quality
    regions = {
        number: [row for row in rows if Path(row["path"]).stem == number and row["region"] is not None]
        for number in "012"
    }
    assert [row["status"] for row in regions["0"]] == ["ok"]
    assert [row["status"] for row in regions["1"]] == ["ok", "corrupt", "corrupt", "empty"]
    assert "the mask is 150x100, but the image 100x150" in regions["1"][1]["reason"]
    assert "run lengths cover" in regions["1"][2]["reason"]
    assert regions["1"][0]["box"] == [10, 20, 80, 20]
    assert [row["status"] for row in regions["2"]] == ["missing"]
    assert all(row["score"] is not None for row in rows if row["region"] is None)


def test_boxes_without_a_name_are_for_every_image(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder.parent / "b.json").write_text("[[0, 0, 9, 9], [70, 0, 99, 99], [1, 1, 1, 1], [0, 0, 64, 64]]")
    status, rows = score(folder, "--regions", folder.parent / "b.json")
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["ok"] * 5 + ["ok", "ok", "empty", "ok", "ok"]
    assert status == 1
    assert rows[2]["box"] == [70, 0, 42, 96]  # cut at the edge
    monkeypatch.setattr(scored_regions, "MOST_REGIONS", 2)
    status, rows = score(folder / "0.png", "--regions", folder.parent / "b.json", out="in/../../few.jsonl")
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "dropped"]
    assert "more than 2 regions: those behind them were left out" in rows[-1]["reason"]


def test_a_folder_of_masks_and_superpixels_are_sources(folder: Path):
    masks = folder.parent / "masks"
    masks.mkdir()
    labels = np.zeros((96, 112), np.uint8)
    labels[:48], labels[48:, :30] = 7, 9
    Image.fromarray(labels).save(masks / "0.png")
    Image.fromarray(labels).save(masks / "1.png")
    _, rows = score(folder, "--regions", masks)
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "ok", "corrupt", "ok", "missing"]
    assert [row["box"] for row in rows[1:3]] == [[0, 0, 112, 48], [0, 48, 30, 48]]
    status, rows = score(folder, "--regions", "slic:6", out="slic.jsonl")
    assert status == 0
    assert len(rows) > 6
    assert sum(row["importance"] or 0 for row in rows if row["path"].endswith("0.png")) == pytest.approx(1)


def test_sam_is_a_source(folder: Path, tmp_path: Path):
    checkpoint = save_sam(tmp_path / "sam.pth")
    options = ("variant=tiny", "prompts=points", "points=3", "min_iou=-99", "min_stability=0", "device=cpu")
    words = [word for option in options for word in ("--region-option", option)]
    _, rows = score(folder, "--regions", f"sam:{checkpoint}", *words)
    assert {row["status"] for row in rows} <= {"ok", "missing"}
    assert any(row["region"] is not None and row["quality"] is not None for row in rows)


def test_one_drawing_is_a_file_and_many_are_a_folder(folder: Path, tmp_path: Path):
    one, heat = tmp_path / "new" / "one.png", tmp_path / "heat.png"
    status, _ = score(
        folder / "0.png", "--regions", "grid:3x2", "--picture", one, "--map", heat, out="in/../../x.jsonl"
    )
    assert status == 0
    assert Image.open(heat).size == (112, 96)
    assert Image.open(one).width > 900
    Image.fromarray(texture(4, 5, (80, 80))).save(folder / "0.tif")
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "below").mkdir()
    Image.fromarray(texture(4, 5, (80, 80))).save(folder / "below" / "1.png")
    status, _ = score(folder, "--recursive", "--map", tmp_path / "maps", "--workers", 2)
    names = sorted(str(path.relative_to(tmp_path / "maps")) for path in (tmp_path / "maps").rglob("*.png"))
    assert names == ["0.png.png", "0.tif.png", "1.png", "2.png", "below/1.png"]
    assert status == 1


def test_the_drawing_shows_where_the_picture_is_bad(folder: Path, tmp_path: Path):
    rgb = texture(3, 0, (288, 288))
    rgb[:, 144:] = np.random.default_rng(0).integers(0, 256, (288, 144, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "half.png")
    assert pocketiqa("score", tmp_path / "half.png", "--map", tmp_path / "map.png") == 0
    result = Scorer().score(rgb, regions=[(0, 0, 144, 288), (144, 0, 144, 288)])
    brightness = np.asarray(Image.open(tmp_path / "map.png").convert("L"), float)
    left, right = result.regions
    assert (brightness[:, :144].mean() > brightness[:, 144:].mean()) == (left.quality > right.quality)
    assert not math.isclose(left.quality, right.quality)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--picture", "one.png"],
            "--picture one.png is one file, but 3 images are drawn: name a folder, such as one",
        ),
        (["--map", "x.jpg"], "drawings are PNG files, name it x.png"),
        (["--map", "in"], "0.png is an image that is scored"),
        (["--picture", "a", "--map", "a"], "or drawn twice"),
        (["--picture", "taken"], "0.png exists already"),
        (["--regions", "nothing.json"], "--regions nothing.json: no such file or folder, and no source of regions"),
        (["--regions", "in/0.png"], "is none of .csv, .json"),
        (["--regions", "grid:0x2"], "columns is 0"),
        (["--regions", "cut.json"], "corrupt behind its first 1 record"),
        (["--region-option", "a=1"], "name it with --regions"),
        (["--regions", "grid:2x2", "--region-option", "a=1"], "its options are: columns, rows"),
        (["--map", "m", "--resume"], "--resume skips images: leave one out"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_image(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "taken").mkdir()
    (folder.parent / "taken" / "0.png").touch()
    (folder.parent / "cut.json").write_text("[[1, 2, 3, 4], [5, 6")
    before = sorted(folder.parent.rglob("*.png"))
    status, rows = score(folder, *words)
    assert (status, rows) == (1, [])
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(folder.parent.rglob("*.png")) == before


def test_drawings_are_replaced_only_if_asked(folder: Path, tmp_path: Path):
    (tmp_path / "m.png").write_text("mine")
    words = ("score", folder / "0.png", "--map", tmp_path / "m.png")
    assert pocketiqa(*words) == 1
    assert (tmp_path / "m.png").read_text() == "mine"
    assert pocketiqa(*words, "--overwrite") == 0
    assert Image.open(tmp_path / "m.png").format == "PNG"


def test_resume_takes_rows_of_the_same_regions_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "b.json").write_text("[[0, 0, 9, 9], [99, 99, 1, 1]]")
    words = ("--regions", tmp_path / "b.json", "--resume")
    _, first = score(folder, *words)
    Image.fromarray(texture(8, 5, (96, 112))).save(folder / "new.png")
    scored_names: list[str] = []
    row = scored_regions.RegionScorer._row
    monkeypatch.setattr(
        scored_regions.RegionScorer,
        "_row",
        lambda self, image: (scored_names.append(Path(image.name).name), row(self, image))[1],
    )
    _, again = score(folder, *words)
    assert scored_names == ["new.png"]
    assert again[: len(first)] == first
    capsys.readouterr()
    for other in (("--regions", "grid:2x2", "--resume"), ("--resume",)):
        assert score(folder, *other)[0] == 1
        assert "its rows were made with other regions (--regions)" in " ".join(capsys.readouterr().err.split())


def test_the_base_install_scores_grids_boxes_and_masks(folder: Path):
    (folder.parent / "b.json").write_text(
        json.dumps([{"image": "0", "rle": encode(np.eye(96, 112) > 0)}, [0, 0, 9, 9]])
    )
    (folder.parent / "masks").mkdir()
    Image.fromarray(np.eye(96, 112, dtype=np.uint8)).save(folder.parent / "masks" / "0.png")
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "scipy", "pyarrow", "skimage", "yaml",
                                  "pycocotools", "fsspec", "matplotlib", "onnx", "datasets", "pandas"}:
            raise ModuleNotFoundError(f"not in the base install: {name}", name=name)
sys.meta_path.insert(0, Refuse())
from distill.cli import app
from distill.terminal.console import run_cli
for number, source in enumerate(sys.argv[2:]):
    words = ["score", sys.argv[1], "--regions", source, "--format", "csv", "--picture", f"{number}.png"]
    assert run_cli(app, words) == (source == "slic:5"), source
"""
    words = [str(folder / "0.png"), "grid:2x2", "b.json", "masks", "slic:5"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder.parent, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[train]'" in done.stderr  # how to install what superpixels need
    assert done.stdout.count(",ok,,") == 3 + 4 + 2 + 1
    assert sorted(path.name for path in folder.parent.glob("?.png")) == ["0.png", "1.png", "2.png"]
