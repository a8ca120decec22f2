"""``regions``, ``distort --regions`` and ``label-regions``, as they are typed."""

import json
from pathlib import Path

import pytest

from distill.cli import app
from distill.commands.regions import source_of
from distill.terminal.console import run_cli
from pseudo_labels.defaults import MAX_REGION_AREA, MAX_REGION_OVERLAP, MAX_REGIONS, MIN_REGION_AREA
from pseudo_labels.pool import Pool
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder / "photographs", images=2, max_side=80)
    assert pocketiqa("pool", folder / "photographs", "--out", folder / "pool") == 0
    return folder / "pool"


def test_the_way_from_a_pool_to_labels_of_regions(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    regions, copies, labels = tmp_path / "regions", tmp_path / "copies", tmp_path / "labels"
    assert pocketiqa("regions", pool, "--by", "grid:3x2", "--out", regions) == 0
    assert "12 regions of 2 images (12 ok), from grid" in " ".join(capsys.readouterr().out.split())
    assert (regions / "preview.png").is_file()
    words = ("--per-image", 2, "--only", "jpeg", "--regions", regions, "--feather-px", 2, "--workers", 1)
    assert pocketiqa("distort", pool, "--out", copies, *words) == 0
    made = Pool.open(copies)
    assert all(ref.region for ref in made if ref.ref_id)
    assert made.manifest.spec["feather_px"] == 2.0
    words = ("--regions", regions, "--teacher", "reference", "--option", "metrics=gmsd")
    assert pocketiqa("label-regions", copies, *words, "--out", labels) == 0
    assert "36 ok by reference" in " ".join(capsys.readouterr().out.split())
    store = RegionLabelStore.open(labels)
    assert store.manifest.content["labelled"] == 36
    assert pocketiqa("label-regions", copies, *words, "--out", labels) == 0
    assert RegionLabelStore.open(labels).digest == store.digest


def test_defaults_are_those_of_the_functions(pool: Path, tmp_path: Path):
    assert pocketiqa("regions", pool, "--out", tmp_path / "regions", "--preview", 0) == 0
    spec = RegionSet.open(tmp_path / "regions").manifest.spec
    assert spec["options"] == {"columns": 4, "rows": 3}
    assert spec["limits"] == {
        "min_area": MIN_REGION_AREA,
        "max_area": MAX_REGION_AREA,
        "max_overlap": MAX_REGION_OVERLAP,
        "max_regions": MAX_REGIONS,
    }
    assert not (tmp_path / "regions" / "preview.png").exists()


def test_a_file_follows_the_source_and_options_reach_it(pool: Path, tmp_path: Path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"picture": "0-astronaut", "box": [0, 0, 30, 30], "mos": 4}]))
    words = ("--option", "names={image: picture, quality: mos}", "--option", "high=5", "--max-area", 0.5)
    assert pocketiqa("regions", pool, "--by", "boxes", path, "--out", tmp_path / "regions", *words) == 0
    (region,) = [row for row in RegionSet.open(tmp_path / "regions").rows() if row.region]
    assert region.quality == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "boxes"), "needs one file or folder"),
        (("--by", "circle"), "unknown source of regions"),
        (("--by", "sam"), "no SAM weights at"),
        (("--by", "sam:a.pth", "b.pth"), "two checkpoints"),
        (("--by", "sam", "--option", "variants=tiny"), "its options are"),
        (("--min-area", "2"), "fractions from 0 to 1"),
    ],
)
def test_mistakes_are_one_line(
    pool: Path, tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path))
    assert pocketiqa("regions", pool, *words, "--out", tmp_path / "out") == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert pocketiqa("regions", pool) == 2  # about the command line itself
    assert "--out" in capsys.readouterr().err


def test_of_a_large_file_it_is_said_that_reading_takes_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for size, words in ((400_000_000, "0.4 GB"), (1000, "")):
        with open(tmp_path / "boxes.json", "wb") as file:
            file.truncate(size)  # without a byte on the disk; nothing of it is read here
        source_of("boxes", tmp_path / "boxes.json", {})
        said = capsys.readouterr().err
        assert words in said
        assert bool(words) == ("read first" in said)
