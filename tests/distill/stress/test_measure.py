import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.stress import LIMITS, StressResult, stress, verdicts
from pseudo_labels.distort import CATALOGUE
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import Draws
from tests.helpers.pools import photograph, write_photographs
from tests.helpers.predictors import write_knowing_student
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photographs(tmp_path_factory.mktemp("photographs"), images=2, max_side=192)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


@pytest.fixture(scope="module")
def result(tiny: Path, files: list[Path]) -> StressResult:
    return stress([tiny], files, short=True)[0]


def test_one_that_knows_the_photograph_keeps_every_limit(tmp_path: Path):
    rgb = photograph("astronaut", 512)
    Image.fromarray(rgb).save(tmp_path / "astronaut.png")
    model = write_knowing_student(tmp_path / "knowing.onnx", rgb)
    (measured,) = stress([model], [tmp_path / "astronaut.png"], short=True)
    assert [str(verdict) for verdict in verdicts(measured) if not verdict.passed] == []
    assert measured.passed


def test_one_that_was_never_trained_does_not(result: StressResult):
    assert not result.passed
    missed = [verdict.check for verdict in verdicts(result) if not verdict.passed]
    assert "pairs of strengths ordered rightly" in missed
    assert "distorted quarters pointed at" in missed
    assert "odd images not repeatable" not in missed


def test_models_measured_together_are_measured_as_alone(tiny: Path, files: list[Path], result: StressResult):
    seen: list[tuple[int, int]] = []
    together = stress([tiny, tiny], files, short=True, progress=lambda *now: seen.append(now))
    assert together == (result, result)
    assert seen == [(1, 2), (2, 2)]
    assert (result.model, result.photographs) == ("tiny", 2)


def test_all_distortions_are_measured_beside_what_the_short_form_says(tiny: Path, result: StressResult):
    folder = files_of_the_smallest(tiny.parent)
    (whole,), (brief,) = stress([tiny], [folder]), stress([tiny], [folder], short=True)
    assert replace(whole, levels=None) == brief
    assert brief.levels is None
    assert whole.levels is not None
    assert list(whole.levels.distortions) == list(CATALOGUE)
    blurred = next(one for one in whole.ordering.worst if one.distortion == "gaussian_blur")
    assert whole.levels.scores["gaussian_blur"][blurred.photograph] == blurred.scores
    record = json.loads(json.dumps(whole.as_dict(), allow_nan=False))["levels"]
    assert record["verdicts"]["blur"]["limit"] == "at least 0.9"
    assert record["verdicts"]["brighten"]["limit"] == "at most 0.02"
    assert record["distortions"]["jpeg"]["drops"] == list(whole.levels.distortions["jpeg"].drops)
    assert "levels" in result.as_dict()  # none, but said so


def files_of_the_smallest(folder: Path) -> Path:
    return write_photographs(folder / "smallest", images=1, max_side=96)[0]


def test_the_json_form_has_figures_verdicts_and_worst_cases(result: StressResult):
    odd = replace(result.odd_images, batch_difference=float("nan"))
    record = json.loads(json.dumps(replace(result, odd_images=odd).as_dict(), allow_nan=False))
    assert record["passed"] is False
    assert len(record["verdicts"]) == 10
    assert record["verdicts"][0] == {
        "check": "pairs of strengths ordered rightly",
        "figure": result.ordering.fraction,
        "limit": "at least 0.95",
        "passed": False,
        "failed": False,  # two photographs prove nothing
        "n": 2,
        "low": None,
        "high": None,
    }
    assert "intervals" not in record
    assert record["verdicts"][8]["figure"] is None
    assert record["verdicts"][8]["passed"] is False
    assert record["ordering"]["worst"][0]["scores"] == list(result.ordering.worst[0].scores)
    # The keys of the file are those that were first written.
    assert record["ordering"]["worst"][0]["damage"] == result.ordering.worst[0].distortion
    assert record["ordering"]["share_by_damage"] == result.ordering.fraction_by_distortion
    assert record["pointing"]["share"] == result.pointing.fraction


def test_the_limits_are_those_that_were_promised(result: StressResult):
    # Written down a second time: a limit that is loosened must be loosened here too.
    asked = {verdict.check: verdict.limit_words for verdict in verdicts(result)}
    assert asked == {
        "pairs of strengths ordered rightly": "at least 0.95",
        "originals that their worst copy beats": "at most 0",
        "spread between sizes, mean": "at most 0.05",
        "turned by EXIF against upright": "at most 0.005",
        "JPEG of quality 100 against PNG": "at most 0.005",
        "RGBA against RGB": "at most 0.005",
        "odd images out of range": "at most 0",
        "odd images not repeatable": "at most 0",
        "odd images, between batch sizes": "at most 0.0001",
        "distorted quarters pointed at": "at least 0.9",
    }
    loose = verdicts(result, replace(LIMITS, least_ordered=0.0))
    assert loose[0].passed


def test_bad_input_is_named(tiny: Path, files: list[Path], tmp_path: Path):
    with pytest.raises(PocketiqaError, match="no photographs"):
        stress([tiny], [])
    with pytest.raises(PocketiqaError, match=r"nowhere\.jpg cannot be used \(missing\)"):
        stress([tiny], [*files, tmp_path / "nowhere.jpg"])
    with pytest.raises(PocketiqaError, match=r"no model at .*nowhere\.onnx"):
        stress([tmp_path / "nowhere.onnx"], files)


def test_intervals_are_those_of_the_mean_over_photographs(tiny: Path, tmp_path: Path):
    """Against resamples that are copied out by hand, with the same draws."""
    files = write_photographs(tmp_path, images=6, max_side=96)
    (measured,) = stress([tiny], files, short=True)
    alone = [stress([tiny], [file], short=True)[0] for file in files]
    values = np.array([one.sizes.mean_spread for one in alone])
    means = []
    for counts in Draws.of(6).counts():
        means += [np.repeat(values, row.astype(int)).mean() for row in counts]
    low, high = np.quantile(means, [0.025, 0.975])
    shown = {verdict.check: verdict for verdict in verdicts(measured)}
    assert shown["spread between sizes, mean"].low == pytest.approx(low, abs=1e-12)
    assert shown["spread between sizes, mean"].high == pytest.approx(high, abs=1e-12)
    ordered = shown["pairs of strengths ordered rightly"]
    assert ordered.low <= ordered.figure <= ordered.high
    assert {verdict.n for verdict in shown.values()} == {5, 6}  # odd images, photographs
    assert measured.failed


def test_a_photograph_that_cannot_be_used_is_left_out_with_a_note(tiny: Path, files: list[Path], tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    said: list[str] = []
    (measured,) = stress([tiny], [tmp_path / "bad.jpg", files[0]], short=True, warn=said.append)
    assert measured.photographs == 1
    assert len(said) == 1
    assert "bad.jpg cannot be used (not_an_image)" in said[0]
    with pytest.raises(PocketiqaError, match="cannot be used"):
        stress([tiny], [tmp_path / "bad.jpg"] * 2, warn=said.append)
