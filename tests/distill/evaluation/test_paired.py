"""Differences of two models over repeats of their training, against scipy and a bootstrap without spread."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.evaluation.paired import mean_difference
from distill.evaluation.predictions import Predictions
from pseudo_labels.metrics.draws import Draws
from tests.helpers.report_sample import predictions, ratings

TARGETS = ratings(60)
DRAWS = Draws.of(len(TARGETS.ids), TARGETS.groups, resamples=200, seed=0)
EVERY = np.ones(60, bool)
GOOD = [predictions("good", "onnx", TARGETS, 0.05, seed) for seed in (1, 2)]
BAD = [predictions("bad", "onnx", TARGETS, 0.3, seed, missing=missing) for seed, missing in ((3, 0), (4, 5))]


def srcc(model: Predictions, keep: np.ndarray) -> float:
    result: Any = spearmanr(model.scores[keep], TARGETS.scores[keep])
    return float(result.statistic)


def test_the_difference_is_the_mean_over_repeats_on_the_images_both_have_scored() -> None:
    pairs = list(zip(GOOD, BAD, strict=True))
    result = mean_difference(pairs, TARGETS.scores, EVERY, DRAWS, "srcc")
    both = [np.isfinite(bad.scores) for bad in BAD]
    assert both[1].sum() == 55
    expected = [srcc(good, keep) - srcc(bad, keep) for (good, bad), keep in zip(pairs, both, strict=True)]
    assert result["difference"] == pytest.approx(np.mean(expected))
    assert result["low"] < result["difference"] < result["high"]
    assert result["low"] > 0
    assert (result["n"], result["reason"]) == (2, "")


def test_a_model_has_no_difference_to_itself() -> None:
    result = mean_difference([(GOOD[0], GOOD[0])], TARGETS.scores, EVERY, DRAWS, "srcc")
    assert (result["difference"], result["low"], result["high"]) == (0, 0, 0)


def test_only_the_masked_images_count() -> None:
    half = np.arange(60) < 30
    result = mean_difference([(GOOD[0], BAD[0])], TARGETS.scores, half, DRAWS, "srcc")
    assert result["difference"] == pytest.approx(srcc(GOOD[0], half) - srcc(BAD[0], half))


def test_repeats_without_a_metric_are_left_out_and_the_reason_is_given() -> None:
    flat = replace(GOOD[0], scores=np.full(60, 0.5))
    one = mean_difference([(GOOD[0], BAD[0]), (flat, BAD[0])], TARGETS.scores, EVERY, DRAWS, "srcc")
    assert one["n"] == 1
    none = mean_difference([(flat, BAD[0])], TARGETS.scores, EVERY, DRAWS, "srcc")
    assert (none["difference"], none["n"], none["reason"]) == (None, 0, "no srcc in any repeat")
    assert mean_difference([], TARGETS.scores, EVERY, DRAWS, "srcc")["reason"] == "no repeat has both"
