"""Tone curves against their fixed points and polynomials fitted to them."""

import numpy as np
import pytest

from pseudo_labels.distort.brightness import MEAN_SHIFT, bend, brighten, darken, mean_shift


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _ramp() -> np.ndarray:
    return np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3))


@pytest.mark.parametrize("middle", [0.1, 0.3, 0.5, 0.7, 1.05])
def test_bend_is_the_parabola_through_three_points(middle: float) -> None:
    parabola = np.polynomial.Polynomial.fit([0, 0.5, 1], [0, middle, 1], 2)
    values = np.linspace(0, 1, 101)
    assert np.allclose(bend(values, middle), np.clip(parabola(values), 0, 1))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_brighten_lifts_and_darken_lowers_every_tone(level: int) -> None:
    ramp = _ramp()
    for operator, sign in ((brighten, 1), (darken, -1)):
        changed = operator(ramp, level / 5, _rng()).astype(int)[0, :, 0]
        assert (sign * (changed - np.arange(256)) >= 0).all()
        assert (np.diff(changed) >= 0).all()
        assert changed[0] == 0
        assert changed[255] == 255


def test_darken_at_level_5_is_its_curve() -> None:
    """Through (0.5, 0.1): y = 1.6 x^2 - 0.6 x, clipped below 0.375."""
    x = np.arange(256) / 255
    expected = np.rint(255 * np.maximum(1.6 * x**2 - 0.6 * x, 0))
    assert np.abs(darken(_ramp(), 1.0, _rng())[0, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_mean_shift_is_a_constant_of_either_sign(level: int) -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    shifts = {int(mean_shift(gray, level / 5, _rng(seed))[0, 0, 0]) - 128 for seed in range(20)}
    step = round(255 * MEAN_SHIFT[level])
    assert all(abs(abs(shift) - step) <= 1 for shift in shifts)
    assert min(shifts) < 0 < max(shifts)
