"""How the models of a comparison are opened, timed and evaluated once."""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.comparison import evaluate
from distill.comparison.config import Comparison
from distill.comparison.evaluate import check_models, open_target, predict_rows, time_rows
from distill.comparison.table import footing
from distill.evaluation.samples import Sample
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from tests.helpers.training import texture

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rated folder."""
    folder = tmp_path_factory.mktemp("rated")
    with open(folder / "ratings.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mos"])
        for number in range(8):
            Image.fromarray(texture(number, 4 * number, (80, 96))).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", 1 - number / 10])
    return folder


def comparison_of(rated: Path, out: Path, **changes: Any) -> Comparison:
    tree = {
        "name": "small",
        "out": out,
        "benchmark": {"ratings": f"csv:{rated / 'ratings.csv'}", "split": "all"},
        "rows": [{"name": "contrast", "models": [OWN], "time": True}],
        "timed_images": 3,
    }
    return Comparison.model_validate({**tree, **changes})


def test_a_missing_model_is_told_before_any_work(tmp_path: Path):
    rows = [{"name": "mine", "models": ["runs/none.onnx"], "make": "pocketiqa run mine"}]
    with pytest.raises(
        PocketiqaError, match=r"row 'mine': 'runs/none.onnx' is no model.*`pocketiqa run mine` makes it"
    ):
        check_models(comparison_of(tmp_path, tmp_path / "out", rows=rows))
    assert not (tmp_path / "out").exists()


def test_reading_the_file_is_part_of_the_time(rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored = (rated / "0.png").read_bytes()

    def slow(_: object) -> list[Sample]:
        return [Sample(str(number), lambda: time.sleep(0.02) or stored) for number in range(6)]

    monkeypatch.setattr(evaluate, "benchmark_samples", slow)
    comparison = comparison_of(rated, tmp_path / "out")
    benchmark, _ = open_target(comparison)
    times = time_rows(comparison, benchmark)
    assert {name: row["n"] for name, row in times["rows"].items()} == {"contrast": 3}
    assert all(row["milliseconds"] > 20 for row in times["rows"].values())
    result = {"target": {"name": "t"}, "headline": "all", "resamples": 1, "times": times}
    assert "from file to score, reading included, on one core" in footing(result)
    # Times of the first version are without it.
    assert "from file to score on one core" in footing({**result, "times": {"machine": "m", "rows": {}}})


def test_a_model_predicts_once_and_again_where_it_changed(rated: Path, tmp_path: Path):
    comparison = comparison_of(rated, tmp_path / "out")
    benchmark, targets = open_target(comparison)
    calls: list[tuple[int, int]] = []
    first = predict_rows(comparison, benchmark, report=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (8, 8)
    (predicted,) = first["contrast"]
    assert predicted.ids == targets.ids
    again = predict_rows(comparison, benchmark)["contrast"][0]
    np.testing.assert_array_equal(again.scores, predicted.scores)
    # Another model under the same name: only on demand are its predictions replaced.
    changed = comparison_of(
        rated, tmp_path / "out", rows=[{"name": "contrast", "models": [OWN], "options": {"nan_below": 0.5}}]
    )
    with pytest.raises(OutputConflictError):
        predict_rows(changed, benchmark)
    replaced = predict_rows(changed, benchmark, overwrite=True)["contrast"][0]
    assert np.isnan(replaced.scores).sum() > np.isnan(predicted.scores).sum()
