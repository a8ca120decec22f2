"""Metrics, selections, subsets and paired differences, against scipy on the same images."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions
from pseudo_labels.errors import PocketiqaError
from tests.helpers.report_sample import predictions, ratings

TARGETS = ratings(120)
GOOD = predictions("good", "onnx", TARGETS, 0.05, 1)
BAD = predictions("bad", "onnx", TARGETS, 0.25, 2, missing=4)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman correlation by scipy."""
    result: Any = stats.spearmanr(one, other)
    return float(result.statistic)


def metrics_of(result: dict, model: int, selection: str = "all") -> dict:
    return result["models"][model]["selections"][selection]["metrics"]


@pytest.fixture(scope="module")
def result() -> dict:
    return evaluate([GOOD, BAD], TARGETS, resamples=300, seed=5)


def test_result_is_json_and_the_same_every_time(result: dict) -> None:
    text = json.dumps(result, allow_nan=False)
    assert json.dumps(evaluate([GOOD, BAD], TARGETS, resamples=300, seed=5), allow_nan=False) == text


def test_metrics_are_those_of_the_scored_images(result: dict) -> None:
    scored = np.isfinite(BAD.scores)
    srcc = metrics_of(result, 1)["srcc"]
    assert srcc["value"] == pytest.approx(spearman(BAD.scores[scored], TARGETS.scores[scored]))
    assert srcc["n"] == 116
    assert srcc["low"] < srcc["value"] < srcc["high"]
    assert result["bootstrap"] == {"resamples": 300, "seed": 5, "level": 0.95, "groups": 60}


def test_coverage_counts_images_without_a_score_and_why(result: dict) -> None:
    coverage = result["models"][1]["coverage"]
    assert (coverage["images"], coverage["scored"], coverage["without"]) == (120, 116, {"corrupt": 4})
    assert coverage["examples"][0] == {
        "id": TARGETS.ids[0],
        "status": "corrupt",
        "reason": "truncated after 120 of 4096 bytes",
    }
    assert result["models"][0]["coverage"]["without"] == {}


def test_headline_leaves_out_near_duplicates_of_training_images(result: dict) -> None:
    near = np.array(TARGETS.near_training)
    assert result["headline"] == "clean"
    assert result["selections"] == {"clean": {"n": int((~near).sum())}, "all": {"n": 120}}
    expected = spearman(GOOD.scores[~near], TARGETS.scores[~near])
    assert metrics_of(result, 0, "clean")["srcc"]["value"] == pytest.approx(expected)


def test_overlapping_images_leave_the_headline_too() -> None:
    everywhere = replace(TARGETS, near_training=(False,) * 120)
    assert list(evaluate([GOOD], everywhere, resamples=20)["selections"]) == ["all"]
    evaluation = evaluate([GOOD], everywhere, overlapping={TARGETS.ids[0], TARGETS.ids[7], "elsewhere"}, resamples=20)
    assert evaluation["selections"] == {"clean": {"n": 118}, "all": {"n": 120}}
    assert evaluation["excluded"] == {"near_train": 0, "overlapping": 2}


def test_one_selection_leaves_out_only_what_the_benchmark_marks_as_other_papers_do() -> None:
    near = np.array(TARGETS.near_training)
    more = {id for id, marked in zip(TARGETS.ids, near, strict=True) if not marked}
    evaluation = evaluate([GOOD], TARGETS, overlapping=set(sorted(more)[:5]), resamples=20)
    unmarked, total = int((~near).sum()), len(near)
    assert evaluation["selections"] == {"clean": {"n": unmarked - 5}, "unmarked": {"n": unmarked}, "all": {"n": total}}
    assert evaluation["headline"] == "clean"
    expected = spearman(GOOD.scores[~near], TARGETS.scores[~near])
    assert metrics_of(evaluation, 0, "unmarked")["srcc"]["value"] == pytest.approx(expected)


def test_each_subset_and_the_mean_of_subsets(result: dict) -> None:
    whole = result["models"][0]["selections"]["all"]
    values = []
    for subset in ("ss01", "ss02", "ss03"):
        own = np.array([name == subset for name in TARGETS.subsets])
        expected = spearman(GOOD.scores[own], TARGETS.scores[own])
        assert whole["subsets"][subset]["metrics"]["srcc"]["value"] == pytest.approx(expected)
        assert whole["subsets"][subset]["n"] == 40
        values.append(expected)
    mean = whole["subset_mean"]["metrics"]["srcc"]
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["low"] < mean["value"] < mean["high"]


def test_recognising_the_subset_gains_nothing_in_the_mean() -> None:
    level = {"ss01": 0.4, "ss02": 0.5, "ss03": 0.75}
    noise = np.random.default_rng(99).normal(0, 0.01, 120)
    scores = np.array([level[subset] for subset in TARGETS.subsets]) + noise
    whole = evaluate([replace(GOOD, scores=scores)], TARGETS, resamples=50)["models"][0]["selections"]["all"]
    assert whole["metrics"]["srcc"]["value"] > 0.4
    assert abs(whole["subset_mean"]["metrics"]["srcc"]["value"]) < 0.25


def test_differences_are_taken_on_common_images(result: dict) -> None:
    versus = result["models"][1]["selections"]["all"]["versus"]
    both = np.isfinite(BAD.scores)
    target = TARGETS.scores[both]
    expected = spearman(BAD.scores[both], target) - spearman(GOOD.scores[both], target)
    srcc = versus["metrics"]["srcc"]
    assert (versus["model"], versus["n"]) == ("good", 116)
    assert srcc["difference"] == pytest.approx(expected)
    assert srcc["high"] < 0
    assert srcc["share_above_zero"] == 0
    assert versus["metrics"]["rmse"]["difference"] > 0
    assert "versus" not in result["models"][0]["selections"]["all"]


def test_a_model_is_no_better_than_itself() -> None:
    evaluation = evaluate([GOOD, replace(GOOD, name="twin")], TARGETS, versus="good", resamples=50)
    srcc = evaluation["models"][1]["selections"]["all"]["versus"]["metrics"]["srcc"]
    assert (srcc["difference"], srcc["low"], srcc["high"], srcc["share_above_zero"]) == (0, 0, 0, 0.5)


def test_a_constant_model_has_reasons_instead_of_numbers() -> None:
    evaluation = evaluate([GOOD, replace(GOOD, name="flat", scores=np.full(120, 0.5))], TARGETS, resamples=20)
    srcc = metrics_of(evaluation, 1)["srcc"]
    assert srcc["value"] is None
    assert srcc["reason"] == "all predictions are equal"
    mean = evaluation["models"][1]["selections"]["all"]["subset_mean"]["metrics"]["srcc"]
    assert mean["value"] is None
    assert mean["reason"] == "no srcc in ss01, ss02, ss03"
    versus = evaluation["models"][1]["selections"]["all"]["versus"]["metrics"]["srcc"]
    assert (versus["difference"], versus["reason"]) == (None, "all predictions are equal")
    json.dumps(evaluation, allow_nan=False)


def test_a_model_without_any_score() -> None:
    empty = Predictions("none", "onnx", ids=(), scores=np.array([]), statuses=(), reasons=())
    evaluation = evaluate([GOOD, empty], TARGETS, resamples=20)
    assert evaluation["models"][1]["coverage"] == {
        "images": 120,
        "scored": 0,
        "without": {"missing": 120},
        "examples": evaluation["models"][1]["coverage"]["examples"],
    }
    assert metrics_of(evaluation, 1)["srcc"]["value"] is None
    json.dumps(evaluation, allow_nan=False)


def test_progress_counts_models_and_selections() -> None:
    seen = []
    evaluate([GOOD, BAD], TARGETS, resamples=5, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_mistakes_are_refused_with_the_known_names() -> None:
    with pytest.raises(PocketiqaError, match="at least one, and each a name"):
        evaluate([GOOD, GOOD], TARGETS)
    with pytest.raises(PocketiqaError, match="compare with 'best': no such model, known: good"):
        evaluate([GOOD], TARGETS, versus="best")
