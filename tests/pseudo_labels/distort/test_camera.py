"""Camera-like distortions against the physics they claim."""

import numpy as np
import pytest
from skimage import color

from pseudo_labels.distort.camera import (
    EXPOSURE_STOPS,
    camera_blur,
    camera_colorfulness,
    camera_compression,
    camera_contrast,
    camera_exposure,
    camera_sharpness,
)
from pseudo_labels.distort.catalogue import Operator
from pseudo_labels.distort.compression import recode_jpeg


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Linear light by scikit-image: Y of XYZ of a gray is linear in its light."""
    return color.rgb2xyz(rgb)[..., 1]


def _both_ways(operator: Operator, rgb: np.ndarray, severity: float) -> list[np.ndarray]:
    """Results for both sides of the coin, in no particular order."""
    distinct = {operator(rgb, severity, np.random.default_rng(seed)).tobytes() for seed in range(12)}
    assert len(distinct) == 2
    return [np.frombuffer(data, np.uint8).reshape(rgb.shape) for data in sorted(distinct)]


def _chroma(rgb: np.ndarray) -> float:
    lab = color.rgb2lab(rgb)
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def test_blur_keeps_the_light_of_a_lamp() -> None:
    """In linear light the total is kept; in sRGB codes it would not be."""
    night = np.full((96, 96, 3), 8, np.uint8)
    night[40:56, 40:56] = 250
    blurred = camera_blur(night, 0.6, np.random.default_rng(0))
    assert _linear(blurred).sum() == pytest.approx(_linear(night).sum(), rel=0.01)
    assert blurred.astype(float).sum() > 1.05 * night.astype(float).sum()


@pytest.mark.parametrize("severity", [0.2, 0.5, 1.0])
def test_exposure_multiplies_the_light(severity: float) -> None:
    gray = np.tile(np.arange(60, 90, dtype=np.uint8)[None, :, None], (64, 3, 3))
    directions = _both_ways(camera_exposure, gray, severity)
    ratios = sorted(float(np.median(_linear(one) / _linear(gray))) for one in directions)
    stops = EXPOSURE_STOPS * severity
    # Codes are whole numbers: the darkest result has codes near 10, so up to 5 %.
    assert ratios == pytest.approx([2.0**-stops, 2.0**stops], rel=0.05)


def test_overexposure_clips_highlights() -> None:
    bright = np.full((64, 64, 3), 200, np.uint8)
    darker, brighter = sorted(_both_ways(camera_exposure, bright, 0.5), key=np.mean)
    assert (brighter == 255).all()
    assert (darker < 200).all()


def test_contrast_scales_the_spread_about_the_mean(photo: np.ndarray) -> None:
    dull = (photo // 8 + 110).astype(np.uint8)  # far from both ends, so that nothing clips
    for one in _both_ways(camera_contrast, dull, 0.6):
        gain = np.exp(1.2 * 0.6 * np.sign(float(one.std() - dull.std())))
        # The flat one has a spread of 5 grey levels, to which rounding matters.
        assert one.std() == pytest.approx(gain * dull.std(), rel=0.04)
        assert color.rgb2gray(one).mean() == pytest.approx(color.rgb2gray(dull).mean(), abs=0.01)


def test_colorfulness_goes_to_gray_or_to_garish(photo: np.ndarray) -> None:
    values = [_chroma(one) for one in _both_ways(camera_colorfulness, photo, 1.0)]
    assert min(values) < 0.2
    assert max(values) > 1.7 * _chroma(photo)


def test_sharpness_overshoots_at_edges_only() -> None:
    edge = np.full((64, 64, 3), 80, np.uint8)
    edge[:, 32:] = 160
    sharp = camera_sharpness(edge, 0.5, np.random.default_rng(0))
    assert sharp[:, :25].tolist() == edge[:, :25].tolist()
    assert sharp.min() < 60
    assert sharp.max() > 180


def test_compression_spans_quality_75_to_4(photo: np.ndarray) -> None:
    worst = camera_compression(photo, 1.0, np.random.default_rng(0))
    assert np.array_equal(worst, recode_jpeg(photo, 4))
    best = camera_compression(photo, 1e-6, np.random.default_rng(0))
    assert np.array_equal(best, recode_jpeg(photo, 75))
