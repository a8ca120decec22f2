import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.cli import app
from distill.scoring.meaning_columns import Meaning
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from students.contract import Calibration
from students.meaning.intervals import Intervals, Spread
from students.meaning.model_record import ModelName
from students.meaning.own_scale import OwnScale
from students.meaning.population import Population, Stars, quantiles_of
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture

SCORES = np.linspace(0.1, 0.9, 101)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx").path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(texture(number, 8 * number, (64, 80))).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    return folder


STARS = Stars((0.3, 0.5, 0.7, 0.8), "x")


def population(model: ModelName, stars: Stars | None = STARS) -> Population:
    return Population("mine", model, "", 101, quantiles_of(SCORES), {}, stars)


def intervals(model: ModelName) -> Intervals:
    return Intervals(model, "of textures", 50, 50, Spread(), {80: 0.1, 95: 0.2})


def score(*words: object) -> int:
    return console.run_cli(app, ["score", *map(str, words)])


def test_all_columns_stand_behind_the_others(
    tmp_path: Path, pictures: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    model = Scorer(tiny).model
    (tmp_path / "p.json").write_bytes(population(model).to_bytes())
    tiny.with_suffix(".intervals.json").write_bytes(intervals(model).to_bytes())
    own = OwnScale(model, Calibration(((0.0, 0.2), (1.0, 0.8))), 1.0, 5.0)
    (tmp_path / "c.json").write_bytes(own.to_bytes())
    out = tmp_path / "scores.csv"
    words = ("--population", tmp_path / "p.json", "--interval", 80, "--calibration", tmp_path / "c.json")
    assert score(pictures, "--model", tiny, "--out", out, *words) == 1  # one file is no image
    assert "80 % intervals hold for these photographs and no others: of textures" in capsys.readouterr().err
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-6:] == ["percentile", "stars", "verdict", "score_low", "score_high", "calibrated"]
    for row in rows[:3]:
        value = float(row["score"])
        assert float(row["percentile"]) == pytest.approx(100 * (value - 0.1) / 0.8, abs=0.6)
        assert int(row["stars"]) == 1 + sum(value >= one for one in (0.3, 0.5, 0.7, 0.8))
        assert row["verdict"] == ("poor", "poor", "fair", "good", "good")[int(row["stars"]) - 1]
        assert float(row["score_low"]) == pytest.approx(max(value - 0.1, 0), abs=2e-6)
        assert float(row["score_high"]) == pytest.approx(min(value + 0.1, 1), abs=2e-6)
        assert float(row["calibrated"]) == pytest.approx(1 + 4 * (0.2 + 0.6 * value), abs=1e-5)
    assert list(rows[3].values())[-6:] == [""] * 6
    assert score(pictures / "0.png", "--model", tiny, *words) == 0
    assert "verdict" in capsys.readouterr().out
    tiny.with_suffix(".intervals.json").unlink()


def test_records_of_other_models_are_refused_before_anything_is_scored(
    tmp_path: Path, pictures: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    other = ModelName("other", "f" * 64)
    (tmp_path / "p.json").write_bytes(population(other).to_bytes())
    (tmp_path / "i.json").write_bytes(intervals(other).to_bytes())
    (tmp_path / "c.json").write_bytes(OwnScale(other, Calibration(((0.0, 0.0), (1.0, 1.0))), 0, 1).to_bytes())
    cases = {
        "--population": ("p.json", "pocketiqa population PHOTOGRAPHS"),
        "--interval-from": ("i.json", "pocketiqa intervals RATINGS"),
        "--calibration": ("c.json", "pocketiqa calibrate RATINGS"),
    }
    for option, (name, command) in cases.items():
        more = ("--interval", 95) if option == "--interval-from" else ()
        out = tmp_path / "scores.csv"
        assert score(pictures, "--model", tiny, "--out", out, option, tmp_path / name, *more) == 1
        message = capsys.readouterr().err
        assert "is of model other (ffffffffffff...) and not of tiny" in message
        assert command in message
        assert not out.exists()


def test_a_population_that_comes_along_is_for_its_models(tiny: Path):
    with pytest.raises(PocketiqaError, match=r"'biq2021' comes along for pocket-l, pocket-m, .* and not for tiny"):
        Meaning("biq2021").columns(Scorer(tiny).model, str(tiny))
    with pytest.raises(PocketiqaError, match=r"no population at nowhere: .* one that comes along: biq2021"):
        Meaning("nowhere").columns(Scorer(tiny).model, str(tiny))


def test_without_a_record_intervals_are_refused_with_the_way_to_one(tiny: Path):
    with pytest.raises(PocketiqaError, match=r"tiny comes without intervals \(tiny.intervals.json\).*--interval-from"):
        Meaning(interval=80).columns(Scorer(tiny).model, str(tiny))
    with pytest.raises(PocketiqaError, match="add --interval 80 or 95"):
        Meaning(interval_from=Path("x")).columns(Scorer(tiny).model, str(tiny))


def test_a_population_without_stars_says_so(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]):
    model = Scorer(tiny).model
    (tmp_path / "p.json").write_bytes(population(model, None).to_bytes())
    percentile, stars, verdict = Meaning(str(tmp_path / "p.json")).columns(model, str(tiny))
    assert "has no stars and no verdicts" in capsys.readouterr().err
    assert [one.name for one in (percentile, stars, verdict)] == ["percentile", "stars", "verdict"]
