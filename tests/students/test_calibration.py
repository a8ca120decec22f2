import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.calibration import Calibration

KNOTS = ((0.0, 0.1), (0.25, 0.2), (1.0, 0.8))


def test_values_between_knots_lie_on_the_line() -> None:
    raw = np.array([0.0, 0.125, 0.25, 0.625, 1.0], np.float32)
    expected = [0.1, 0.15, 0.2, 0.5, 0.8]  # by hand
    found = Calibration(KNOTS)(raw)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_ranks_are_kept_and_maps_keep_their_shape() -> None:
    raw = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    found = Calibration(KNOTS)(raw)
    assert found.shape == raw.shape
    assert np.array_equal(np.argsort(found.ravel()), np.argsort(raw.ravel()))


def test_nan_stays_nan() -> None:
    assert np.isnan(Calibration(KNOTS)(np.array([np.nan], np.float32))).all()


def test_json_round_trip() -> None:
    assert Calibration.from_dict(Calibration(KNOTS).as_dict()) == Calibration(KNOTS)


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        ([[0, 0]], "two or more"),
        ([[0, 0], [1, 2]], "lie in"),
        ([[0, 0], [1, float("nan")]], "lie in"),
        ([[0.1, 0], [1, 1]], "covers raw scores 0.1 to 1"),
        ([[0, 0], [0.9, 1]], "covers raw scores 0.0 to 0.9"),
        ([[0, 0], [0.5, 0.6], [0.5, 0.7], [1, 1]], "strictly increase"),
        ([[0, 0], [0.5, 0.5], [1, 0.5]], "strictly increase"),
        ([[0, 1], [1, 0]], "strictly increase"),
        ([[0, 0], 1], "pairs of numbers"),
        ([["a", 0], [1, 1]], "pairs of numbers"),
        (7, "pairs of numbers"),
    ],
)
def test_unfit_knots_are_refused(knots: object, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        Calibration.from_dict({"knots": knots})
