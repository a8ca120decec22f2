from dataclasses import replace

import numpy as np
import pytest

from distill.evaluation.regions import RegionTargets, evaluate_regions, tones
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.correlation import srcc


def targets(pictures: int = 30, regions: int = 4, seed: int = 0) -> RegionTargets:
    """Pictures with one distorted region each, two of every scene."""
    generator = np.random.default_rng(seed)
    distorted = np.zeros((pictures, regions), bool)
    distorted[np.arange(pictures), generator.integers(0, regions, pictures)] = True
    quality = np.where(distorted, generator.uniform(0.1, 0.8, (pictures, 1)), 1.0)
    importance = np.where(distorted, generator.uniform(0.1, 1, (pictures, 1)), 0.0)
    return RegionTargets(
        [f"p{number}" for number in range(pictures) for _ in range(regions)],
        [f"s{number // 2}" for number in range(pictures) for _ in range(regions)],
        quality=quality.ravel(), importance=importance.ravel(), distorted=distorted.ravel(),
    )  # fmt: skip


def test_a_perfect_model_reaches_one_and_one_without_order_nothing():
    labels = targets()
    constant = np.full(len(labels.quality), 0.5)
    result = evaluate_regions(labels, {"good": labels.quality, "flat": constant}, {"good": labels.importance})
    good, flat = (result["quality"]["models"][name] for name in ("good", "flat"))
    assert (result["regions"], result["pictures"], result["scenes"]) == (120, 30, 15)
    assert [good[name]["value"] for name in ("srcc", "plcc", "within", "pointing")] == pytest.approx([1, 1, 1, 1])
    assert flat["srcc"]["value"] is None
    assert flat["within"]["value"] == 0
    assert flat["pointing"]["value"] == pytest.approx(0.25)
    assert result["quality"]["gain"]["flat"]["value"] == pytest.approx(1)
    assert result["quality"]["gain"]["flat"]["low"] == pytest.approx(1)
    assert result["importance"]["models"]["good"]["srcc"]["value"] == pytest.approx(1)


def test_equal_labels_bound_what_a_continuous_score_can_reach():
    labels = targets()
    generator = np.random.default_rng(1)
    points = np.where(labels.distorted, 0.0, generator.uniform(0.5, 1, len(labels.quality)))
    result = evaluate_regions(labels, {"points": points}, {})
    # One of four differs: 1 - (3^3 - 3) / (4^3 - 4) = 0.6 of the variance of the ranks is left.
    assert result["quality"]["ceiling"]["value"] == pytest.approx(np.sqrt(0.6))
    assert result["quality"]["models"]["points"]["within"]["value"] == pytest.approx(np.sqrt(0.6))
    assert result["importance"] == {}


def test_within_pictures_is_the_mean_of_their_own_correlations():
    generator = np.random.default_rng(2)
    labels = targets()
    scores = generator.random(len(labels.quality))
    result = evaluate_regions(labels, {"random": scores}, {})["quality"]["models"]["random"]
    own = [srcc(scores[4 * n : 4 * n + 4], labels.quality[4 * n : 4 * n + 4]) for n in range(30)]
    assert result["within"]["value"] == pytest.approx(np.mean(own))
    assert result["within"]["low"] < np.mean(own) < result["within"]["high"]
    pointed = [labels.distorted[4 * n + np.argmin(scores[4 * n : 4 * n + 4])] for n in range(30)]
    assert result["pointing"]["value"] == pytest.approx(np.mean(pointed))


def test_pictures_without_order_and_unknown_importance_take_no_part():
    labels = targets(pictures=20)
    importance = labels.importance.copy()
    importance[:40] = np.nan
    quality = labels.quality.copy()
    quality[:4] = 1.0  # a clean picture
    some = RegionTargets(labels.picture, labels.scene, quality, importance, np.r_[[False] * 4, labels.distorted[4:]])
    result = evaluate_regions(some, {"a": labels.quality}, {"a": labels.importance})
    assert result["quality"]["models"]["a"]["within"]["n"] == 19
    assert result["quality"]["models"]["a"]["pointing"]["n"] == 19
    assert result["importance"]["models"]["a"]["srcc"]["n"] == 40
    assert result["importance"]["models"]["a"]["within"]["n"] == 10


def test_predictions_that_lack_a_region_are_refused():
    labels = targets(pictures=4)
    with pytest.raises(PocketiqaError, match="'short' gives no finite value for each of the 16"):
        evaluate_regions(labels, {"short": labels.quality[:-1]}, {})
    with pytest.raises(PocketiqaError, match="'nan' gives no finite value"):
        evaluate_regions(labels, {"nan": np.where(labels.distorted, np.nan, 1.0)}, {})
    with pytest.raises(PocketiqaError, match="give one of each"):
        RegionTargets([], [], np.zeros(0), np.zeros(0), np.zeros(0, bool))


def test_selections_tell_apart_what_can_be_seen():
    picture = [name for name in "abc" for _ in range(3)]
    done = ["jpeg", "darken", "", "white_noise", "", "", "brighten", "", ""]
    targets = RegionTargets(
        picture, picture, np.linspace(0, 1, 9), np.linspace(0, 1, 9),
        distorted=np.array([False] * 3 + [True, False, False] * 2), distortion=done,
    )  # fmt: skip
    parts = {name: np.flatnonzero(part).tolist() for name, part in targets.selections().items()}
    assert parts == {
        "several distorted regions, visible": [0, 2],
        "several distorted regions": [0, 1, 2],
        # What is left of the third picture would all be equal.
        "one distorted region, visible": [3, 4, 5],
        "one distorted region": [3, 4, 5, 6, 7, 8],
    }
    some = targets.take(np.array([True, False, True] + [False] * 6))
    assert (some.picture, some.distortion, some.quality.tolist()) == (["a", "a"], ["jpeg", ""], [0.0, 0.25])
    assert "gaussian_blur" not in tones()
    assert {"darken", "camera_exposure", "color_saturation_hsv"} <= tones()
    assert replace(targets, distortion=()).selections() == {}
    assert replace(targets, distortion=[""] * 9).selections() == {}
