from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.stages.adaptation import (
    ADAPTED,
    CALIBRATED,
    UNADAPTED,
    NotBetterError,
    adapted_card,
    best_candidate,
    check_better,
    chosen_scores,
    chosen_without,
    measure,
    srcc_of_folds,
    summary_lines,
)
from students.contract import StudentContract
from students.session import open_model
from students.shipped import model_path


def rho(first: Any, second: Any) -> float:
    result: Any = spearmanr(first, second)
    return float(result.statistic)


RNG = np.random.default_rng(0)
N = 120
RATINGS = RNG.uniform(0, 1, N)
FOLDS = np.arange(N) % 5
GROUPS = [str(number // 2) for number in range(N)]
GOOD, POOR = (RATINGS + RNG.normal(0, spread, N) for spread in (0.1, 1.0))


def record(**changes: object) -> dict:
    scores = {UNADAPTED: POOR, CALIBRATED: POOR, ADAPTED: GOOD}
    return {
        "source": {"name": "pocket-m", "sha256": "a" * 64},
        "ratings": {"name": "mine", "images": N, "scenes": 60, "digest": "b" * 64, "scale": "1 to 5, highest is best"},
        "folds": 5,
        "trained": "heads",
        "penalty": 0.01,
        **measure(scores, RATINGS, FOLDS, GROUPS),
        **changes,
    }


def test_srcc_is_the_mean_over_folds():
    expected = np.mean([rho(POOR[fold == FOLDS], RATINGS[fold == FOLDS]) for fold in range(5)])
    assert srcc_of_folds(POOR, RATINGS, FOLDS) == pytest.approx(expected)
    # A shift of one fold changes no order; scores that are all alike count 0.
    assert srcc_of_folds(POOR + 7 * (FOLDS == 2), RATINGS, FOLDS) == pytest.approx(expected)
    assert srcc_of_folds(np.zeros(N), RATINGS, FOLDS) == 0.0


def test_what_is_chosen_for_a_fold_has_not_seen_it():
    # One candidate is right where the other is wrong: in fold 0 alone.
    first = np.where(FOLDS == 0, RATINGS, 1 - RATINGS)
    second = 1 - first
    held_out = {"first": first, "second": second}
    assert best_candidate(held_out, RATINGS) == "second"
    assert chosen_without(held_out, RATINGS, FOLDS, 0) == "second"
    assert chosen_scores(held_out, RATINGS, FOLDS) == pytest.approx(second)
    assert best_candidate({"a": GOOD, "b": GOOD}, RATINGS) == "a"
    # Where folds disagree, each has what is best on the others.
    third = np.where(FOLDS < 2, RATINGS, RATINGS + 0.1 * (FOLDS - 1))
    fourth = RATINGS + 0.15
    chosen = [chosen_without({"third": third, "fourth": fourth}, RATINGS, FOLDS, fold) for fold in range(5)]
    assert chosen == ["fourth", "fourth", "fourth", "fourth", "third"]


def test_the_choice_costs_what_it_costs():
    """Of many candidates without a relation to the ratings the best looks good; the procedure does not."""
    rng = np.random.default_rng(1)
    held_out = {str(number): rng.uniform(size=N) for number in range(100)}
    best = best_candidate(held_out, RATINGS)
    assert srcc_of_folds(held_out[best], RATINGS, FOLDS) > 0.17
    assert srcc_of_folds(chosen_scores(held_out, RATINGS, FOLDS), RATINGS, FOLDS) < 0.15


def test_gains_are_measured_and_chance_is_refused():
    measured = record()
    value, low, high = measured["gain"][UNADAPTED]
    assert value == pytest.approx(measured["srcc"][ADAPTED][0] - measured["srcc"][UNADAPTED][0], abs=1e-3)
    assert 0.2 < low < value < high
    assert measured["rmse"][ADAPTED] == pytest.approx(np.sqrt(np.mean((GOOD - RATINGS) ** 2)), abs=1e-4)
    check_better(measured)
    alike = POOR + 0.01 * RNG.normal(size=N)
    chance = measure({UNADAPTED: POOR, CALIBRATED: POOR, ADAPTED: alike}, RATINGS, FOLDS, GROUPS)
    with pytest.raises(NotBetterError, match=r"nothing is written: .* unadapted 0\.\d+ \[.*may be chance"):
        check_better(chance)
    # Better than the calibrated scores alone is not enough.
    with pytest.raises(NotBetterError):
        check_better(measure({UNADAPTED: GOOD, CALIBRATED: POOR, ADAPTED: GOOD}, RATINGS, FOLDS, GROUPS))
    # Too few scenes have no interval, so nothing is shown.
    with pytest.raises(NotBetterError):
        check_better(measure({UNADAPTED: POOR, CALIBRATED: POOR, ADAPTED: GOOD}, RATINGS, FOLDS, ["one"] * N))


def test_lines_and_card_say_data_and_result():
    made = record()
    lines = summary_lines(made)
    assert lines[0] == "pocket-m adapted to 120 ratings of 60 scenes (mine): heads fitted, penalty 0.01"
    assert lines[1].startswith("  unadapted, on scenes of other folds: SRCC 0.")
    assert "adapting gains 0." in lines[2]
    assert "gains" not in lines[3]
    blocks = summary_lines(record(trained="blocks", parts=["backbone.blocks.5", "neck", "heads"]))
    assert blocks[0].endswith("heads, then backbone.blocks.5, neck, heads trained")
    contract = replace(open_model(model_path("pocket-s")).contract, name="mine", metrics={"adaptation": made})
    assert isinstance(contract, StudentContract)
    card = adapted_card(contract, "c" * 64, ["The second look is left out."])
    assert card.startswith("# mine\n\nmine is pocket-m adapted to 120 ratings")
    assert "digest bbbbbbbbbbbb; scale: 1 to 5, highest is best" in card
    assert "model aaaaaaaaaaaa (SHA-256)" in card
    assert "- The second look is left out." in card
