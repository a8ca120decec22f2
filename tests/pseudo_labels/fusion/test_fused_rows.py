from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.calibrate import MonotoneMap, uncalibrated
from pseudo_labels.fusion.combine import ExpectedError
from pseudo_labels.fusion.ensemble import Ensemble
from pseudo_labels.fusion.fused_rows import (
    OutlierMeasure,
    find_examples,
    fuse_rows,
    mean_weights,
    measure_outliers,
    pooled,
)
from pseudo_labels.fusion.keep import Drop, KeepRule
from pseudo_labels.fusion.parts import Columns, Part
from pseudo_labels.records import Status
from tests.helpers.fusing import BAD, ROWS, invented_pool, seen, teacher_store

NAN = np.nan
NAMES = ("a", "b")
ENSEMBLE = Ensemble(NAMES, (uncalibrated(), uncalibrated()), None, MonotoneMap(), ExpectedError(1.0, 1.0))
SCORES = np.array([[0.4, 0.2, NAN, 0.3, 0.6], [0.4, 0.8, NAN, NAN, 0.5]], np.float32)
COLUMNS = Columns(SCORES, np.full_like(SCORES, NAN))
RULE = KeepRule(min_confidence=0.0, max_disagreement=0.2)


def record(status: str, reason: str = "", row: int = 0) -> dict[str, object]:
    return {"id": f"id{row}", "uri": f"{row}.png", "sha256": "", "view": "full", "status": status, "reason": reason}


def test_pooled_is_the_mean_over_all_axes_behind_the_channels():
    features = np.arange(24, dtype=np.float16).reshape(2, 3, 2, 2)
    assert pooled(features).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert pooled(np.ones((4, 3), np.float16)).shape == (4, 3)


def test_outliers_are_measured_as_by_scipy():
    """Log distance to the 10th nearest of the standardised sample; six principal axes of six change no distance."""
    generator = np.random.default_rng(0)
    sample, points = generator.normal(size=(200, 6)), generator.normal(0, 3, (30, 6))
    mean, scale = sample.mean(axis=0), sample.std(axis=0)
    scaled = (sample - mean) / scale
    among = cdist(scaled, scaled)
    np.fill_diagonal(among, np.inf)  # no image is its own neighbour
    usual = np.log(np.sort(among, axis=1)[:, 9])
    deviation = 1.4826 * np.median(np.abs(usual - np.median(usual)))
    fresh = np.log(np.sort(cdist((points - mean) / scale, scaled), axis=1)[:, 9])
    measure = OutlierMeasure(sample, "map")
    assert measure(points, np.full(30, -1)) == pytest.approx((fresh - np.median(usual)) / deviation, abs=1e-3)
    assert measure(sample, np.arange(200)) == pytest.approx((usual - np.median(usual)) / deviation, abs=1e-3)


def test_a_sample_that_cannot_tell_outliers_is_refused():
    with pytest.raises(PocketiqaError, match="feature 'map' is there for 49 images: at least 50 are needed"):
        OutlierMeasure(np.random.default_rng(0).normal(size=(49, 3)), "map")
    with pytest.raises(PocketiqaError, match="feature 'map' is the same for most images"):
        OutlierMeasure(np.ones((60, 3)), "map")


def test_outliers_of_a_store_are_the_planted_rows(tmp_path: Path):
    pool = invented_pool(tmp_path / "pool")
    features = np.random.default_rng(1).normal(size=(ROWS, 8, 2, 2))
    features[[100, 150, 200]] += 30 * np.random.default_rng(2).normal(size=(3, 8, 1, 1))
    store = teacher_store(tmp_path / "a", pool, seen(0.1, 1), name="a", features={"map": features})
    scored = np.arange(ROWS) != BAD
    steps: list[tuple[int, int]] = []
    spans = [range(0, 90), range(90, ROWS)]
    distances = measure_outliers(Part("a", store), "map", scored, spans, lambda *step: steps.append(step))
    assert np.flatnonzero(np.isnan(distances)).tolist() == [BAD]
    assert set(np.argsort(-np.nan_to_num(distances, nan=-9))[:3]) == {100, 150, 200}
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_rows_are_fused_and_dropped_by_the_rule():
    fused = fuse_rows(ENSEMBLE, COLUMNS, RULE)
    assert fused.score[[0, 1, 3, 4]] == pytest.approx([0.4, 0.5, 0.3, 0.55])
    assert fused.kept.tolist() == [True, False, False, False, True]
    assert fused.counts() == {"no_score": 1, "teachers": 1, "disagreement": 1}
    assert {drop: np.flatnonzero(rows).tolist() for drop, rows in fused.dropped().items()} == {
        Drop.NO_SCORE: [2],
        Drop.TEACHERS: [3],
        Drop.DISAGREEMENT: [1],
    }
    # A tenth of the scale is expected of both; no disagreement on row 0.
    assert fused.score_std[0] == pytest.approx(0.1)
    assert fused.measures.confidence[[0, 2]] == pytest.approx([0.5, 0.0])
    assert fused.min_teachers == 2
    assert fuse_rows(ENSEMBLE, COLUMNS, KeepRule(min_teachers=1, min_confidence=0.0)).kept.sum() == 4


def test_labels_have_score_or_reason():
    fused = fuse_rows(ENSEMBLE, COLUMNS, RULE)
    kept = fused.label(0, [record("failed", "late"), record("ok", row=7)], NAMES)
    assert (kept.id, kept.status, kept.reason) == ("id7", Status.OK, "")
    assert kept.score == pytest.approx(0.4)
    assert kept.confidence == pytest.approx(0.5)
    dropped = fused.label(1, [record("ok"), record("ok")], NAMES)
    assert (dropped.status, dropped.confidence) == (Status.DROPPED, 0.0)
    assert dropped.reason == "the teachers disagree by 0.300, more than 0.2 (fused score 0.500)"
    same = fused.label(2, [record("corrupt", "cut off")] * 2, NAMES)
    assert (same.status, same.reason) == (Status.CORRUPT, "cut off")
    mixed = fused.label(2, [record("corrupt", "cut off"), record("missing", "no such file")], NAMES)
    assert (mixed.status, mixed.reason) == (Status.FAILED, "a: corrupt, cut off; b: missing, no such file")


def test_a_rule_that_keeps_nothing_is_refused_with_the_values_that_were_reached():
    with pytest.raises(PocketiqaError, match=r"nothing is kept of 5 rows \(1 for no_score, 1 for teachers, 3 for conf"):
        fuse_rows(ENSEMBLE, COLUMNS, KeepRule(min_confidence=0.9))
    alone = Columns(SCORES[:, 2:4], np.full((2, 2), NAN, np.float32))
    with pytest.raises(PocketiqaError, match="disagreement is not known: relax the keep rule"):
        fuse_rows(ENSEMBLE, alone, RULE)


def test_mean_weights_are_over_kept_rows_only():
    fused = fuse_rows(ENSEMBLE, COLUMNS, RULE)
    assert mean_weights(ENSEMBLE, COLUMNS, fused.kept) == [0.5, 0.5]
    assert mean_weights(ENSEMBLE, COLUMNS, np.array([True, False, False, True, False])) == [0.75, 0.25]


def test_examples_are_the_clearest_first():
    scores = np.array([[0.4, 0.0, 0.0, 0.5], [0.4, 1.0, 0.8, 0.6]], np.float32)
    columns = Columns(scores, np.full_like(scores, NAN))
    examples = find_examples(fuse_rows(ENSEMBLE, columns, RULE), ENSEMBLE, columns)
    assert {name: [own["row"] for own in chosen] for name, chosen in examples.items()} == {
        "kept": [0, 3],
        "disagreement": [1, 2],
    }
    assert examples["disagreement"][0] == {
        "row": 1,
        "score": 0.5,
        "score_std": round(float(np.sqrt(0.1**2 + 0.5**2)), 4),
        "disagreement": 0.5,
        "teachers": [0.0, 1.0],
    }
    missing = find_examples(fuse_rows(ENSEMBLE, COLUMNS, RULE), ENSEMBLE, COLUMNS)["teachers"]
    assert [own["teachers"] for own in missing] == [[0.3, None]]
    assert missing[0]["disagreement"] is None
