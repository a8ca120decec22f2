import numpy as np
import pytest

from distill.stress.ordering import DISTORTIONS, Ladder, ladders, ordering
from distill.stress.photograph import Photograph
from tests.helpers.pools import photograph
from tests.helpers.predictors import Predictor, constant, knowing


@pytest.fixture(scope="module")
def taken() -> Photograph:
    return Photograph("coffee", photograph("coffee", 256))


def test_one_that_knows_the_original_orders_everything(taken: Photograph):
    ordered = ordering(ladders(knowing(taken.rgb), taken))
    assert (ordered.fraction, ordered.originals_beaten, ordered.worst) == (1, 0, ())
    assert ordered.fraction_by_distortion == dict.fromkeys(DISTORTIONS, 1)


def test_one_that_likes_damage_orders_nothing(taken: Photograph):
    right = knowing(taken.rgb)
    ordered = ordering(ladders(Predictor(lambda rgb: 1 - right.score(rgb).quality_map), taken))
    assert (ordered.fraction, ordered.originals_beaten) == (0, 4)
    assert {ladder.distortion for ladder in ordered.worst} == set(DISTORTIONS)


def test_equal_scores_are_not_an_order(taken: Photograph):
    ordered = ordering(ladders(constant(), taken))
    assert (ordered.fraction, ordered.originals_beaten) == (0, 4)


def test_one_that_mistakes_noise_for_detail_fails_by_noise_alone(taken: Photograph):
    # The mean step between neighbouring pixels: blur and coarse compression lower it, noise raises it.
    ordered = ordering(ladders(Predictor(lambda rgb: np.abs(np.diff(rgb.astype(float), axis=1)) / 255), taken))
    assert ordered.fraction_by_distortion["white_noise"] == 0
    assert ordered.fraction_by_distortion["gaussian_blur"] == 1
    assert ordered.worst[0].distortion == "white_noise"


def test_shares_of_given_scores():
    ordered = ordering(
        [
            Ladder("a", "jpeg", (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)),
            Ladder(
                "b", "jpeg", (0.5, 0.6, 0.5, 0.4, 0.3, 0.5)
            ),  # first and last step wrong, original not beaten but met
            Ladder("c", "white_noise", (0.9, 0.8, 0.7, 0.7, 0.5, 0.4)),
        ]
    )
    assert ordered.fraction == pytest.approx(12 / 15)
    assert ordered.fraction_by_distortion == pytest.approx({"jpeg": 0.8, "white_noise": 0.8})
    assert ordered.fraction_by_step == {"jpeg": (0.5, 1, 1, 1, 0.5), "white_noise": (1, 1, 0, 1, 1)}
    assert ordered.originals_beaten == 1
    assert [ladder.photograph for ladder in ordered.worst] == ["b", "c"]
