"""Noises against their declared statistics; shrinkage against scikit-image."""

import math

import numpy as np
import pytest
from skimage.restoration import denoise_wavelet

from pseudo_labels.distort.noise import (
    COMPONENT_VARIANCE,
    DENOISED_VARIANCE,
    IMPULSE_FRACTION,
    MULTIPLICATIVE_VARIANCE,
    WHITE_VARIANCE,
    denoise,
    impulse_noise,
    multiplicative_noise,
    shrink_wavelets,
    white_noise,
    white_noise_color,
)

LEVELS = [1, 2, 3, 4, 5]


def _rng() -> np.random.Generator:
    return np.random.default_rng(11)


def _gray(value: int = 128) -> np.ndarray:
    return np.full((256, 256, 3), value, np.uint8)


@pytest.mark.parametrize("level", LEVELS)
def test_white_noise_has_its_variance_and_is_white(level: int) -> None:
    noise = white_noise(_gray(), level / 5, _rng()).astype(float) - 128
    # Rounding to grey levels adds 1/12. 200,000 samples: 1 % is three standard errors.
    assert noise.var() == pytest.approx(255**2 * WHITE_VARIANCE[level] + 1 / 12, rel=0.02)
    assert abs(noise.mean()) < 0.2
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("level", LEVELS)
def test_component_noise_is_white_in_ycbcr(level: int) -> None:
    noise = white_noise_color(_gray(), level / 5, _rng()).astype(float) - 128
    red, green, blue = np.moveaxis(noise, -1, 0)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    components = np.stack([y, (blue - y) / 1.772, (red - y) / 1.402]).reshape(3, -1)
    expected = 255**2 * COMPONENT_VARIANCE[level]
    assert np.cov(components) == pytest.approx(expected * np.eye(3), abs=0.03 * expected + 0.1)


@pytest.mark.parametrize("level", LEVELS)
def test_impulses_hit_their_share_half_black_half_white(level: int) -> None:
    noisy = impulse_noise(_gray(), level / 5, _rng())
    assert set(np.unique(noisy)) == {0, 128, 255}
    half, spread = IMPULSE_FRACTION[level] / 2, 4 * math.sqrt(IMPULSE_FRACTION[level] / 2 / noisy.size)
    assert (noisy == 0).mean() == pytest.approx(half, abs=spread)
    assert (noisy == 255).mean() == pytest.approx(half, abs=spread)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [40, 120])
def test_multiplicative_noise_grows_with_the_signal_and_is_bounded(level: int, value: int) -> None:
    noise = multiplicative_noise(_gray(value), level / 5, _rng()).astype(float) - value
    assert noise.var() == pytest.approx(value**2 * MULTIPLICATIVE_VARIANCE[level] + 1 / 12, rel=0.03)
    assert np.abs(noise).max() <= value * math.sqrt(3 * MULTIPLICATIVE_VARIANCE[level]) + 0.5


def test_multiplicative_noise_leaves_black_alone() -> None:
    assert not multiplicative_noise(_gray(0), 1.0, _rng()).any()


@pytest.mark.parametrize("sigma", [25.0, 80.0])
def test_shrinkage_is_bayes_shrink(sigma: float, photo: np.ndarray) -> None:
    noisy = photo[..., 1] + sigma * _rng().standard_normal(photo.shape[:2])
    expected = denoise_wavelet(
        noisy / 255, sigma=sigma / 255, wavelet="sym4", wavelet_levels=4, mode="soft", rescale_sigma=False
    )
    assert np.allclose(shrink_wavelets(noisy, sigma) / 255, expected, atol=1e-9)


def test_denoise_removes_most_of_the_noise_and_some_of_the_image(photo: np.ndarray) -> None:
    for level in LEVELS:
        error = np.mean((denoise(photo, level / 5, _rng()).astype(float) - photo) ** 2)
        assert error < 0.5 * 255**2 * DENOISED_VARIANCE[level]
    flat = denoise(_gray(), 1.0, _rng()).astype(float) - 128
    assert flat.std() < 0.1 * 255 * math.sqrt(DENOISED_VARIANCE[5])
