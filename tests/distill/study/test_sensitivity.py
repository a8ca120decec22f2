"""Paired differences of score changes, against a bootstrap written out."""

import numpy as np
import pytest

from distill.evaluation.targets import Targets
from distill.study import page, tables
from distill.study.sensitivity import compared
from pseudo_labels.files import canonical_json
from pseudo_labels.metrics.draws import Draws

IMAGES, SCENES, RESAMPLES = 60, 20, 2000
GROUPS = tuple(f"scene{row % SCENES}" for row in range(IMAGES))
IDS = tuple(f"{row}.png" for row in range(IMAGES))
TARGETS = Targets(
    "t",
    "opinions",
    ids=IDS,
    scores=np.zeros(IMAGES),
    groups=GROUPS,
    subsets=("",) * IMAGES,
    near_training=(False,) * IMAGES,
)


def record(change: np.ndarray, suppressed: float = 0.25) -> dict[str, object]:
    by_id = {id: None if np.isnan(value) else float(value) for id, value in zip(IDS, change, strict=True)}
    return {
        "change": by_id,
        "ungated": {id: value and 2 * value for id, value in by_id.items()},
        "suppressed": suppressed,
    }


def changes(mean: float, seed: int) -> np.ndarray:
    measured = np.random.default_rng(seed).gamma(2.0, mean / 2, IMAGES)
    measured[seed] = np.nan  # an image without a match
    return measured


def test_means_and_paired_interval_are_those_of_a_bootstrap_written_out():
    plain, noisy = [changes(0.2, 0), changes(0.2, 1)], [changes(0.15, 2), changes(0.15, 3)]
    repeats = {
        "plain": {"0": record(plain[0]), "1": record(plain[1])},
        "noise": {"1": record(noisy[1]), "0": record(noisy[0])},
        "student": {},
    }
    comparison = compared(repeats, "plain", TARGETS, Draws.of(IMAGES, GROUPS, resamples=RESAMPLES, seed=0))
    assert comparison is not None
    assert comparison["arms"]["noise"]["change"] == pytest.approx(np.nanmean(noisy))
    assert comparison["arms"]["noise"]["ungated"] == pytest.approx(2 * np.nanmean(noisy))
    assert comparison["arms"]["plain"]["suppressed"] == 0.25
    assert comparison["differences"].keys() == {"noise"}
    each = np.nanmean(np.array(noisy) - np.array(plain), axis=0)
    difference = comparison["differences"]["noise"]
    assert difference["difference"] == pytest.approx(each.mean())
    generator = np.random.default_rng(7)
    scenes = each.reshape(-1, SCENES)  # image row, scene
    drawn = [scenes[:, generator.integers(0, SCENES, SCENES)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Worst case seen over seeds: 0.004 of a width of 0.06.
    assert (difference["low"], difference["high"]) == pytest.approx((low, high), abs=0.008)


def test_without_a_measured_arm_there_is_nothing_and_without_the_baseline_no_difference():
    draws = Draws.of(IMAGES, GROUPS, resamples=50, seed=0)
    assert compared({"student": {}}, "student", TARGETS, draws) is None
    comparison = compared({"student": {}, "noise": {"0": record(changes(0.1, 1))}}, "student", TARGETS, draws)
    assert comparison is not None
    assert comparison["differences"] == {}


def test_only_repeats_that_both_have_are_compared_and_each_with_the_same():
    draws = Draws.of(IMAGES, GROUPS, resamples=50, seed=0)
    own, base = {seed: changes(0.1, seed) for seed in (1, 2)}, {seed: changes(0.3, 10 + seed) for seed in (0, 1)}
    repeats = {
        arm: {str(seed): record(comparison) for seed, comparison in columns.items()}
        for arm, columns in (("plain", base), ("noise", own))
    }
    comparison = compared(repeats, "plain", TARGETS, draws)
    assert comparison is not None
    assert comparison["differences"]["noise"]["difference"] == pytest.approx(np.nanmean(own[1] - base[1]))
    assert comparison["arms"]["noise"]["n"] == 2


def test_a_model_that_no_match_can_move_gives_null_and_ends_no_study():
    draws = Draws.of(IMAGES, GROUPS, resamples=50, seed=0)
    nothing, some = record(np.full(IMAGES, np.nan)), record(changes(0.1, 1))
    moved = compared({"plain": {"0": some}, "constant": {"0": nothing}}, "plain", TARGETS, draws)
    assert moved is not None
    assert moved["arms"]["constant"] == {"change": None, "ungated": None, "suppressed": 0.25, "n": 1}
    gap = moved["differences"]["constant"]
    assert (gap["difference"], gap["reason"], gap["n"]) == (None, "no image has a change in both", 0)
    canonical_json(moved)
    result = {"baseline": "plain", "rows": [{"values": {}, "sensitivity": moved}]}
    shown = tables._sensitivity(result)
    assert [list(column.cells)[1] for column in shown.columns] == ["all", "constant", "–", "–", "25 %", "–"]
    section = page._sensitivity(result)
    assert section is not None
    assert "no image has a change in both" in section.html()
