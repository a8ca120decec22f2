from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.stress.levels import LevelLimits, LevelTable, level_table, level_verdicts
from distill.stress.ordering import Ladder
from pseudo_labels.distort import CATALOGUE, effects


def srcc(one: Any, other: Any) -> float:
    result: Any = spearmanr(one, other)
    return float(result.statistic)


def ladders_of(scores: dict[str, list[tuple[float, ...]]], rest: tuple[float, ...]) -> list[Ladder]:
    """Ladders of all distortions over as many photographs as the named ones have; those not named score ``rest``."""
    photographs = len(next(iter(scores.values())))
    return [
        Ladder(str(number), name, scores[name][number] if name in scores else rest)
        for number in range(photographs)
        for name in CATALOGUE
    ]


FALLING = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


@pytest.fixture(scope="module")
def table() -> LevelTable:
    generator = np.random.default_rng(0)
    scores = {name: [tuple(row) for row in generator.random((6, 6))] for name in ("brighten", "darken")}
    return level_table(ladders_of(scores, FALLING))


def test_figures_are_means_over_photographs_of_the_order_within_each(table: LevelTable):
    for name in ("brighten", "darken"):
        rows = np.array(list(table.scores[name].values()))
        orders = [srcc(-row[1:], range(1, 6)) for row in rows]
        strong = [srcc(-row[3:], range(3, 6)) for row in rows]
        figures = table.distortions[name]
        assert figures.srcc == pytest.approx(np.mean(orders))
        assert figures.srcc_strong == pytest.approx(np.mean(strong))
        assert figures.above == pytest.approx(np.mean(rows[:, 5] > rows[:, 0]))
        assert figures.drops == pytest.approx((rows[:, :1] - rows[:, 1:]).mean(0))
        assert figures.intervals["srcc"].low <= figures.srcc <= figures.intervals["srcc"].high


def test_an_effect_is_the_mean_of_its_distortions(table: LevelTable):
    members = effects()["brightness"]
    assert table.effects["brightness"].distortions == members
    for figure in ("srcc", "srcc_strong", "above"):
        mean = np.mean([getattr(table.distortions[name], figure) for name in members])
        assert getattr(table.effects["brightness"], figure) == pytest.approx(mean)
    drops = np.mean([table.distortions[name].drops for name in members], axis=0)
    assert table.effects["brightness"].drops == pytest.approx(drops)
    assert table.effects["blur"].srcc == 1


def test_each_effect_has_its_own_limit_and_each_distortion_one_for_its_worst_copy(table: LevelTable):
    told = level_verdicts(table)
    # Written down a second time: a limit that is loosened must be loosened here too.
    asked = {name: told[name].limit_words for name in effects()}
    plain = dict.fromkeys(("blur", "noise", "compression", "spatial"), "at least 0.9")
    assert asked == plain | dict.fromkeys(("brightness", "contrast", "colour", "sharpness"), "at least 0.6")
    assert {told[name].limit_words for name in CATALOGUE} == {"at most 0.02"}
    assert told["brightness"].figure == table.effects["brightness"].srcc_strong
    assert told["blur"].figure == table.effects["blur"].srcc
    assert told["jpeg"].passed
    assert not level_verdicts(table, LevelLimits(most_above=-0.1))["jpeg"].passed


def test_one_photograph_of_24_above_its_original_is_too_many():
    rows = [FALLING] * 23 + [(0.4, 0.3, 0.3, 0.3, 0.2, 0.5)]
    told = level_verdicts(level_table(ladders_of({"high_sharpen": rows}, FALLING)))
    assert (told["high_sharpen"].figure, told["high_sharpen"].passed) == (pytest.approx(1 / 24), False)


def test_equal_scores_are_no_order_and_not_above():
    made = level_table(ladders_of({"color_saturation_hsv": [(0.5,) * 6] * 5}, FALLING))
    figures = made.distortions["color_saturation_hsv"]
    assert (figures.srcc, figures.srcc_strong, figures.above) == (0, 0, 0)
