import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets, targets_from_labels
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec
from tests.helpers.pools import synthetic_pool
from tests.helpers.report_sample import predictions, ratings

TARGETS = ratings(120)
GOOD = predictions("good", "onnx", TARGETS, 0.05, 1)
BAD = predictions("bad", "onnx", TARGETS, 0.25, 2, missing=4)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """What scipy says."""
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
    found = metrics_of(result, 1)["srcc"]
    assert found["value"] == pytest.approx(spearman(BAD.scores[scored], TARGETS.scores[scored]))
    assert found["n"] == 116
    assert found["low"] < found["value"] < found["high"]
    assert result["bootstrap"] == {"resamples": 300, "seed": 5, "level": 0.95, "groups": 60}


def test_coverage_counts_images_without_a_score_and_why(result: dict) -> None:
    found = result["models"][1]["coverage"]
    assert (found["images"], found["scored"], found["without"]) == (120, 116, {"corrupt": 4})
    assert found["examples"][0] == {
        "id": TARGETS.ids[0],
        "status": "corrupt",
        "reason": "truncated after 120 of 4096 bytes",
    }
    assert result["models"][0]["coverage"]["without"] == {}


def test_headline_leaves_out_images_near_the_training_part(result: dict) -> None:
    near = np.array(TARGETS.near_training)
    assert result["headline"] == "clean"
    assert result["selections"] == {"clean": {"n": int((~near).sum())}, "all": {"n": 120}}
    expected = spearman(GOOD.scores[~near], TARGETS.scores[~near])
    assert metrics_of(result, 0, "clean")["srcc"]["value"] == pytest.approx(expected)


def test_overlapping_images_leave_the_headline_too() -> None:
    everywhere = replace(TARGETS, near_training=(False,) * 120)
    assert list(evaluate([GOOD], everywhere, resamples=20)["selections"]) == ["all"]
    found = evaluate([GOOD], everywhere, overlapping={TARGETS.ids[0], TARGETS.ids[7], "elsewhere"}, resamples=20)
    assert found["selections"] == {"clean": {"n": 118}, "all": {"n": 120}}
    assert found["excluded"] == {"near_train": 0, "overlapping": 2}


def test_what_the_benchmark_marks_alone_is_left_out_of_a_selection_that_others_can_compare_with() -> None:
    near = np.array(TARGETS.near_training)
    more = {id for id, marked in zip(TARGETS.ids, near, strict=True) if not marked}
    found = evaluate([GOOD], TARGETS, overlapping=set(sorted(more)[:5]), resamples=20)
    unmarked, total = int((~near).sum()), len(near)
    assert found["selections"] == {"clean": {"n": unmarked - 5}, "unmarked": {"n": unmarked}, "all": {"n": total}}
    assert found["headline"] == "clean"
    expected = spearman(GOOD.scores[~near], TARGETS.scores[~near])
    assert metrics_of(found, 0, "unmarked")["srcc"]["value"] == pytest.approx(expected)


def test_each_subset_and_the_mean_of_subsets(result: dict) -> None:
    found = result["models"][0]["selections"]["all"]
    values = []
    for subset in ("ss01", "ss02", "ss03"):
        own = np.array([name == subset for name in TARGETS.subsets])
        expected = spearman(GOOD.scores[own], TARGETS.scores[own])
        assert found["subsets"][subset]["metrics"]["srcc"]["value"] == pytest.approx(expected)
        assert found["subsets"][subset]["n"] == 40
        values.append(expected)
    mean = found["subset_mean"]["metrics"]["srcc"]
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["low"] < mean["value"] < mean["high"]


def test_telling_subsets_apart_earns_nothing_in_the_mean() -> None:
    level = {"ss01": 0.4, "ss02": 0.5, "ss03": 0.75}
    noise = np.random.default_rng(99).normal(0, 0.01, 120)
    scores = np.array([level[subset] for subset in TARGETS.subsets]) + noise
    found = evaluate([replace(GOOD, scores=scores)], TARGETS, resamples=50)["models"][0]["selections"]["all"]
    assert found["metrics"]["srcc"]["value"] > 0.4
    assert abs(found["subset_mean"]["metrics"]["srcc"]["value"]) < 0.25


def test_differences_are_taken_on_common_images(result: dict) -> None:
    found = result["models"][1]["selections"]["all"]["versus"]
    both = np.isfinite(BAD.scores)
    target = TARGETS.scores[both]
    expected = spearman(BAD.scores[both], target) - spearman(GOOD.scores[both], target)
    srcc = found["metrics"]["srcc"]
    assert (found["model"], found["n"]) == ("good", 116)
    assert srcc["difference"] == pytest.approx(expected)
    assert srcc["high"] < 0
    assert srcc["share_above_zero"] == 0
    assert found["metrics"]["rmse"]["difference"] > 0
    assert "versus" not in result["models"][0]["selections"]["all"]


def test_a_model_is_no_better_than_itself() -> None:
    found = evaluate([GOOD, replace(GOOD, name="twin")], TARGETS, versus="good", resamples=50)
    srcc = found["models"][1]["selections"]["all"]["versus"]["metrics"]["srcc"]
    assert (srcc["difference"], srcc["low"], srcc["high"], srcc["share_above_zero"]) == (0, 0, 0, 0.5)


def test_a_constant_model_has_reasons_instead_of_numbers() -> None:
    found = evaluate([GOOD, replace(GOOD, name="flat", scores=np.full(120, 0.5))], TARGETS, resamples=20)
    srcc = metrics_of(found, 1)["srcc"]
    assert srcc["value"] is None
    assert srcc["reason"] == "all predictions are equal"
    mean = found["models"][1]["selections"]["all"]["subset_mean"]["metrics"]["srcc"]
    assert mean["value"] is None
    assert mean["reason"] == "no srcc in ss01, ss02, ss03"
    versus = found["models"][1]["selections"]["all"]["versus"]["metrics"]["srcc"]
    assert (versus["difference"], versus["reason"]) == (None, "all predictions are equal")
    json.dumps(found, allow_nan=False)


def test_a_model_without_any_score() -> None:
    empty = Predictions("none", "onnx", (), np.array([]), (), ())
    found = evaluate([GOOD, empty], TARGETS, resamples=20)
    assert found["models"][1]["coverage"] == {
        "images": 120,
        "scored": 0,
        "without": {"missing": 120},
        "examples": found["models"][1]["coverage"]["examples"],
    }
    assert metrics_of(found, 1)["srcc"]["value"] is None
    json.dumps(found, allow_nan=False)


def test_progress_counts_models_and_selections() -> None:
    seen = []
    evaluate([GOOD, BAD], TARGETS, resamples=5, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_mistakes_are_told() -> None:
    with pytest.raises(PocketiqaError, match="at least one, and each a name"):
        evaluate([GOOD, GOOD], TARGETS)
    with pytest.raises(PocketiqaError, match="compare with 'best': no such model, known: good"):
        evaluate([GOOD], TARGETS, versus="best")
    with pytest.raises(PocketiqaError, match="hold no images"):
        Targets("x", "opinions", (), np.array([]), (), (), ())
    with pytest.raises(PocketiqaError, match="belong together"):
        Targets("x", "opinions", ("a", "a"), np.zeros(2), ("", ""), ("", ""), (False, False))
    with pytest.raises(PocketiqaError, match="1 names for 120 images"):
        replace(TARGETS, names=("one",))


def test_labels_as_targets_know_scenes_and_distortions(tmp_path: Path) -> None:
    pool = synthetic_pool(tmp_path, images=2, per_image=4, names=("gaussian_blur", "jpeg"))
    stamp = TeacherStamp("hand", 1, "none", scale="0 worst, 1 best")
    spec = StoreSpec(stamp, pool.digest, len(pool), 1)
    store = LabelStore.create(tmp_path / "labels", spec, pool_path=pool.folder)
    labels = [PseudoLabel(ref.id, ref.uri, ref.sha256, score=0.05 * at) for at, ref in enumerate(pool)]
    labels[3] = replace(labels[3], status=Status.FAILED, reason="x", score=float("nan"))
    store.write_shard(0, labels)
    store.finish()

    found = targets_from_labels(store, pool)
    assert found.source == "teacher"
    assert found.ids == tuple(ref.id for at, ref in enumerate(pool) if at != 3)
    assert found.scores == pytest.approx([0.05 * at for at in range(len(pool)) if at != 3])
    assert len(set(found.groups)) == 2
    assert set(found.subsets) == {"original", "blur", "compression"}
    assert any("gaussian blur" in name for name in found.names)
    some = targets_from_labels(store, pool, [pool[5].id, pool[3].id, pool[1].id], subset_of=lambda ref: "")
    assert some.ids == (pool[5].id, pool[1].id)
    with pytest.raises(PocketiqaError, match="of another pool"):
        targets_from_labels(store, synthetic_pool(tmp_path / "other", images=1, per_image=1))
