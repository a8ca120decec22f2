from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.scoring.meaning_records import (
    calibration_summary,
    interval_summary,
    make_calibration,
    make_intervals,
    make_population,
    population_summary,
)
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from students.meaning.intervals import Intervals
from students.meaning.own_scale import OwnScale
from students.meaning.population import Population
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture

IMAGES = 24


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx").path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for number in range(IMAGES):
        Image.fromarray(texture(number % 8, 2 * number, (64, 80))).save(folder / f"{number}.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def scores(pictures: Path, tiny: Path) -> dict[str, float]:
    scorer = Scorer(tiny)
    return {path.name: scorer.score(path).score for path in sorted(pictures.iterdir())}


def rate(folder: Path, pictures: Path, scores: dict[str, float], *, noise: float = 0.02, with_scores: bool = False):
    """Ratings from 1 to 5 that rise with the tiny model's scores, in scenes of three."""
    values = np.array(list(scores.values()))
    ratings = 1 + 4 * np.clip((values - values.min()) / np.ptp(values) * 0.9 + 0.05, 0, 1)
    ratings += np.random.default_rng(0).normal(0, noise, len(ratings))
    header = "image,mos,group" + (",score" if with_scores else "")
    lines = [
        f"{pictures / name},{rating:.4f},{at // 3}" + (f",{score}" if with_scores else "")
        for at, ((name, score), rating) in enumerate(zip(scores.items(), np.clip(ratings, 1, 5), strict=True))
    ]
    (folder / "ratings.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder / "ratings.csv"


def test_a_folder_becomes_a_population(tmp_path: Path, pictures: Path, tiny: Path, scores: dict[str, float]):
    out = tmp_path / "mine.json"
    made = make_population([str(pictures)], out, model=str(tiny), max_pixels=MAX_PIXELS)
    assert Population.load(out, Scorer(tiny).model) == made
    assert (made.n, made.name, made.date) == (IMAGES, "mine", date.today().isoformat())
    assert made.about == {"left_out": 0, "sources": ["pictures"]}
    np.testing.assert_allclose(made.quantiles, np.quantile(list(scores.values()), np.linspace(0, 1, 201)), atol=1e-6)
    assert made.stars is None
    assert "no stars and verdicts" in list(population_summary(made))[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    with pytest.raises(OutputConflictError, match="exists already"):
        make_population([str(pictures)], out, model=str(tiny), max_pixels=MAX_PIXELS)


def test_a_rated_set_gives_stars_as_well(tmp_path: Path, pictures: Path, tiny: Path, scores: dict[str, float]):
    ratings = rate(tmp_path, pictures, scores)
    made = make_population(
        [f"csv:{ratings}?scale=1:5"], tmp_path / "rated.json", name="mine", model=str(tiny), max_pixels=MAX_PIXELS
    )
    assert made.about == {"left_out": 0, "sources": ["ratings"], "parts": {"ratings": IMAGES}}
    assert made.stars is not None
    assert made.stars.source == "mine"
    assert made.stars.measured[0]["n"] == IMAGES
    best, worst = max(scores.values()), min(scores.values())
    assert (made.verdict(best), made.verdict(worst)) == ("good", "poor")
    lines = list(population_summary(made))
    assert lines[1].startswith("stars change at scores of")
    assert "people rated below 0.4, called poor" in lines[2]


def test_a_bad_file_is_left_out_and_said(
    tmp_path: Path, pictures: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    made = make_population(
        [str(pictures), str(tmp_path / "cut.jpg")], tmp_path / "a.json", model=str(tiny), max_pixels=MAX_PIXELS
    )
    assert (made.n, made.about["left_out"]) == (IMAGES, 1)
    assert "1 photographs have no score, such as" in capsys.readouterr().err


def test_a_killed_run_is_resumed(tmp_path: Path, pictures: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    scored: list[str] = []
    row = Scorer.row

    def counted(self: Scorer, path: Path, **more: Any) -> object:
        if len(scored) == 10:
            raise KeyboardInterrupt
        scored.append(str(path))
        return row(self, path, **more)

    out = tmp_path / "mine.json"
    monkeypatch.setattr(Scorer, "row", counted)
    with pytest.raises(KeyboardInterrupt):
        make_population([str(pictures)], out, model=str(tiny), max_pixels=MAX_PIXELS)
    assert not out.exists()
    monkeypatch.setattr(Scorer, "row", row)
    resumed = make_population([str(pictures)], out, model=str(tiny), max_pixels=MAX_PIXELS)
    whole = make_population([str(pictures)], tmp_path / "b.json", name="mine", model=str(tiny), max_pixels=MAX_PIXELS)
    assert resumed == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "mine.json"]


def test_sets_and_photographs_are_not_mixed(tmp_path: Path, pictures: Path, tiny: Path):
    with pytest.raises(PocketiqaError, match="make no population together"):
        make_population([str(pictures), "csv:a.csv"], tmp_path / "a.json", model=str(tiny), max_pixels=MAX_PIXELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PocketiqaError, match="no images in"):
        make_population([str(tmp_path / "empty")], tmp_path / "a.json", model=str(tiny), max_pixels=MAX_PIXELS)
    assert not (tmp_path / "a.json").exists()


def test_a_calibration_leads_to_the_own_scale(tmp_path: Path, pictures: Path, tiny: Path, scores: dict[str, float]):
    ratings, out = rate(tmp_path, pictures, scores), tmp_path / "cal.json"
    made = make_calibration([str(ratings)], out, model=str(tiny), scale="1:5", max_pixels=MAX_PIXELS)
    assert OwnScale.load(out) == made
    assert (made.low, made.high, made.measured["scenes"]) == (1.0, 5.0, 8)
    assert made.measured["helps"]
    values = list(scores.values())
    assert made(min(values)) == pytest.approx(1.2, abs=0.3)
    assert made(max(values)) == pytest.approx(4.8, abs=0.3)
    lines = list(calibration_summary(made))
    assert lines[-1].startswith("it helps")
    # The same from the scores that the file of ratings has already, and from what `score` wrote.
    given = rate(tmp_path, pictures, scores, with_scores=True)
    again = make_calibration([str(given)], tmp_path / "b.json", model=str(tiny), scale="1:5", max_pixels=MAX_PIXELS)
    assert again.calibration == made.calibration
    stored = tmp_path / "scores.csv"
    stored.write_text("path,score\n" + "".join(f"{pictures / name},{value}\n" for name, value in scores.items()))
    third = make_calibration(
        [str(ratings)], tmp_path / "c.json", model=str(tiny), scale="1:5", scores=stored, max_pixels=MAX_PIXELS
    )
    assert third.calibration == made.calibration


def test_ratings_that_have_nothing_to_do_with_scores_are_said_not_to_help(
    tmp_path: Path, pictures: Path, tiny: Path, scores: dict[str, float]
):
    # Ratings that are the scores themselves: no curve can do better.
    ratings = tmp_path / "r.csv"
    ratings.write_text("image,mos\n" + "".join(f"{pictures / name},{value}\n" for name, value in scores.items()))
    made = make_calibration([str(ratings)], tmp_path / "a.json", model=str(tiny), max_pixels=MAX_PIXELS)
    assert not made.measured["helps"]
    assert list(calibration_summary(made))[-1].startswith("it does not help")


def test_two_scales_are_refused(tmp_path: Path, pictures: Path, tiny: Path, scores: dict[str, float]):
    ratings = rate(tmp_path, pictures, scores)
    sets = [f"csv:{ratings}?scale=1:5", f"csv:{ratings}?scale=0:10"]
    with pytest.raises(PocketiqaError, match="several scales"):
        make_calibration(sets, tmp_path / "a.json", model=str(tiny), max_pixels=MAX_PIXELS)


def many(folder: Path, digest: str) -> tuple[Path, Path]:
    """Ratings and scores of 300 photographs that need not exist."""
    generator = np.random.default_rng(1)
    scores = generator.uniform(0.2, 0.8, 300)
    ratings = np.clip(scores + generator.normal(0, 0.1, 300), 0, 1)
    (folder / "r.csv").write_text("image,mos\n" + "".join(f"{at}.jpg,{one}\n" for at, one in enumerate(ratings)))
    rows = "".join(f"{at}.jpg,{one},{digest}\n" for at, one in enumerate(scores))
    (folder / "s.csv").write_text("path,score,model_sha256\n" + rows)
    return folder / "r.csv", folder / "s.csv"


def test_intervals_from_stored_scores(tmp_path: Path, tiny: Path):
    ratings, stored = many(tmp_path, Scorer(tiny).digest)
    out = tmp_path / "tiny.intervals.json"
    made = make_intervals([str(ratings)], out, domain=" noise ", model=str(tiny), scores=stored, max_pixels=MAX_PIXELS)
    assert Intervals.load(out) == made
    assert (made.domain, made.scenes) == ("noise", 300)
    # Normal errors of deviation 0.1.
    assert made.radius[80] * made.spread(0.5) == pytest.approx(0.128, abs=0.03)
    assert made.radius[95] * made.spread(0.5) == pytest.approx(0.196, abs=0.04)
    lines = list(interval_summary(made))
    assert lines[0].endswith("for these alone: noise")
    assert any(line.startswith("  all: holds 0.9") for line in lines)


def test_scores_of_fold_models_are_named_as_such(tmp_path: Path, tiny: Path):
    ratings, stored = many(tmp_path, "f" * 64)
    arguments = {"domain": "noise", "model": str(tiny), "scores": stored, "max_pixels": MAX_PIXELS}
    with pytest.raises(PocketiqaError, match="are of model ffff"):
        make_intervals([str(ratings)], tmp_path / "a.json", **arguments)
    made = make_intervals([str(ratings)], tmp_path / "a.json", folds=True, **arguments)
    assert made.model == Scorer(tiny).model
    with pytest.raises(PocketiqaError, match="--folds is said of"):
        make_intervals([str(ratings)], tmp_path / "b.json", folds=True, **{**arguments, "scores": None})
    with pytest.raises(PocketiqaError, match="--domain is empty"):
        make_intervals([str(ratings)], tmp_path / "b.json", **{**arguments, "domain": " "})


def test_a_model_that_learned_from_such_a_set_is_named(
    tmp_path: Path, pictures: Path, scores: dict[str, float], capsys: pytest.CaptureFixture[str]
):
    data = ({"name": "1-r", "digest": "", "licence": ""},)
    model = export_tiny(tmp_path / "learned.onnx", data=data).path
    ratings, stored = many(tmp_path, Scorer(model).digest)
    make_intervals(
        [str(ratings)], tmp_path / "a.json", domain="x", model=str(model), scores=stored, max_pixels=MAX_PIXELS
    )
    assert "tiny has learned from photographs of r: if these are among them" in capsys.readouterr().err
