import numpy as np
import pytest

from distill.stress.photograph import Photograph
from distill.stress.pointing import DISTORTIONS, QUARTERS, Pointed, cells, in_quarter, pointed, pointing
from tests.helpers.pools import photograph
from tests.helpers.predictors import Predictor, constant, knowing


@pytest.fixture(scope="module")
def taken() -> Photograph:
    return Photograph("coffee", photograph("coffee", 256))


def test_one_that_knows_the_original_points_at_every_quarter(taken: Photograph):
    summary = pointing(pointed(knowing(taken.rgb), taken))
    assert (summary.fraction, summary.fraction_by_distortion, summary.worst) == (1, dict.fromkeys(DISTORTIONS, 1), ())


def test_one_that_points_away_never_does(taken: Photograph):
    right = knowing(taken.rgb)
    cases = pointed(Predictor(lambda rgb: right.score(rgb).quality_map[::-1]), taken)
    assert pointing(cases).fraction == 0
    assert len(cases) == 8


def test_a_map_that_falls_everywhere_or_nowhere_points_at_nothing(taken: Photograph):
    right = knowing(taken.rgb)
    assert pointing(pointed(constant(), taken)).fraction == 0
    assert pointing(pointed(Predictor(lambda rgb: np.full((4, 4), right.score(rgb).score)), taken)).fraction == 0


def test_to_rise_less_than_elsewhere_is_not_to_point():
    assert not Pointed("a", "white_noise", "top left", -0.1, -0.2).right
    assert Pointed("a", "white_noise", "top left", 0.1, 0.09).right
    assert not Pointed("a", "white_noise", "top left", float("nan"), 0.0).right


def test_wrong_cases_are_told_worst_first():
    cases = [
        Pointed("a", "white_noise", "top left", 0.1, 0.2),
        Pointed("b", "white_noise", "top left", 0.1, 0.5),
        Pointed("c", "gaussian_blur", "top left", 0.1, 0),
    ]
    summary = pointing(cases)
    assert summary.fraction == pytest.approx(1 / 3)
    assert summary.fraction_by_distortion == {"white_noise": 0, "gaussian_blur": 1}
    assert [case.photograph for case in summary.worst] == ["b", "a"]


def test_cells_of_an_odd_side_in_the_middle_count_in_neither():
    inside, outside = cells((3, 4), QUARTERS["top right"])
    assert inside.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert outside.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("quarter", QUARTERS.values())
def test_only_the_quarter_is_damaged(quarter: tuple[int, int]):
    clean, distorted = np.zeros((65, 80, 3), np.uint8), np.full((65, 80, 3), 9, np.uint8)
    picture = in_quarter(clean, distorted, quarter)
    assert (picture == 9).sum() == 32 * 40 * 3
    assert picture[-quarter[0], -quarter[1]].tolist() == [9] * 3
    assert not clean.any()
