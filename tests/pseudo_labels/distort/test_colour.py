"""Colour distortions against scikit-image's colour spaces and counting."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import CubicSpline
from skimage import color
from skimage.filters import unsharp_mask

from pseudo_labels.distort.colour import (
    COLOURS,
    CONTRAST_AMOUNT,
    HSV_FACTOR,
    LAB_FACTOR,
    MEAN_SHIFT,
    SHARPEN_AMOUNT,
    SHIFT_PX,
    bend,
    brighten,
    color_diffusion,
    color_quantization,
    color_saturation_hsv,
    color_saturation_lab,
    color_shift,
    contrast_change,
    darken,
    from_lab,
    high_sharpen,
    mean_shift,
    to_lab,
)

_RNG = np.random.default_rng(0)


def test_lab_and_back_is_the_image(photo: np.ndarray) -> None:
    assert np.abs(from_lab(to_lab(photo)) - photo).max() < 0.5


def test_colours_outside_srgb_are_clipped_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    wild = np.array([[[50.0, 0, 300], [5, 90, 120], [99, -200, -200], [0, 0, 60]]])
    rgb = from_lab(wild)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="negative Z"):
        expected = color.lab2rgb(wild)
    assert np.allclose(rgb, 255 * expected, atol=1e-4)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_hsv_saturation_is_scaled_saturation(level: int, photo: np.ndarray) -> None:
    hsv = color.rgb2hsv(photo)
    hsv[..., 1] *= HSV_FACTOR[level]
    expected = 255 * color.hsv2rgb(hsv)
    assert np.abs(color_saturation_hsv(photo, level / 5, _RNG) - expected).max() <= 0.5 + 1e-6


def test_hsv_saturation_of_zero_is_gray(photo: np.ndarray) -> None:
    gray = color_saturation_hsv(photo, 4 / 5, _RNG)
    assert (gray == photo.max(axis=-1, keepdims=True)).all()


def test_hsv_saturation_below_zero_turns_hues_around() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:] = (180, 60, 60)
    turned = color_saturation_hsv(red, 1.0, _RNG)[0, 0]
    assert turned.tolist() == [180, 228, 228]


@pytest.mark.parametrize("level", [1, 2])
def test_lab_saturation_scales_chroma_where_it_is_displayable(level: int) -> None:
    dull = np.zeros((64, 64, 3), np.uint8)
    dull[:] = (120, 128, 118)
    before = color.rgb2lab(dull)[0, 0]
    after = color.rgb2lab(color_saturation_lab(dull, level / 5, _RNG))[0, 0]
    assert after[0] == pytest.approx(before[0], abs=0.5)
    assert after[1:] == pytest.approx(LAB_FACTOR[level] * before[1:], abs=0.6)


def test_diffusion_spreads_colour_and_keeps_lightness() -> None:
    """A reddish half beside a gray half of equal lightness: at level 1 colour crosses the border, and nothing else."""
    lab = np.zeros((64, 64, 3))
    lab[..., 0] = 60
    lab[:, 32:, 1] = 30
    rgb = np.rint(255 * color.lab2rgb(lab)).astype(np.uint8)
    after = color.rgb2lab(color_diffusion(rgb, 1 / 5, _RNG))
    assert np.abs(after[..., 0] - 60).max() < 0.7
    step = np.zeros(64)
    step[32:] = 30
    expected = ndimage.gaussian_filter1d(step, 3.5, mode="nearest")
    assert np.abs(after[20, :, 1] - expected).max() < 1.5


def test_shift_moves_green_only_and_only_near_edges(photo: np.ndarray) -> None:
    shifted = color_shift(photo, 1.0, np.random.default_rng(3))
    assert np.array_equal(shifted[..., [0, 2]], photo[..., [0, 2]])
    assert not np.array_equal(shifted[..., 1], photo[..., 1])
    half = np.full((64, 200, 3), 90, np.uint8)
    half[:, 30:] = 200
    moved = color_shift(half, 1.0, np.random.default_rng(3))
    assert np.array_equal(moved[:, 80:], half[:, 80:])


def test_shift_moves_as_far_as_its_level_says() -> None:
    """Fine texture everywhere, so that everything counts as edge; the peak of the cross-correlation is the shift."""
    texture = np.random.default_rng(0).integers(0, 256, (128, 128, 1)).astype(np.uint8).repeat(3, axis=2)
    for level in (2, 5):
        moved = color_shift(texture, level / 5, np.random.default_rng(8))[..., 1].astype(float)
        product = np.fft.fft2(moved - moved.mean()) * np.conj(np.fft.fft2(texture[..., 1] - texture.mean()))
        correlation = np.fft.ifft2(product).real
        correlation[0, 0] = 0  # the part that is not blended away
        peak = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
        peak = np.where(peak > 64, peak - 128, peak)
        assert np.hypot(*peak) == pytest.approx(SHIFT_PX[level], abs=0.75)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_quantization_leaves_few_colours_with_the_right_mean(level: int, photo: np.ndarray) -> None:
    few = color_quantization(photo, level / 5, _RNG)
    assert 0.8 * COLOURS[level] <= len(np.unique(few.reshape(-1, 3), axis=0)) <= COLOURS[level]
    # Error diffusion: seen from afar the colours are those of the image.
    blurred = [ndimage.gaussian_filter(rgb.astype(float), (6, 6, 0)) for rgb in (few, photo)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 6


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


LEVELS = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("level", LEVELS)
def test_sharpening_is_an_unsharp_mask_of_lightness(level: int, photo: np.ndarray) -> None:
    gray = photo[..., 1:2].repeat(3, axis=2)
    lightness = color.rgb2lab(gray)[..., 0]
    masked = unsharp_mask(lightness, radius=3, amount=SHARPEN_AMOUNT[level], preserve_range=True)
    value = color.rgb2lab(high_sharpen(gray, level / 5, np.random.default_rng(0)))[..., 0]
    # Theirs reaches 4 deviations and mirrors nothing; ours 3. Away from the borders, and relative to the amount.
    difference = np.abs(value - np.clip(masked, 0, 100))[15:-15, 15:-15]
    assert difference.mean() < 0.2 + 0.1 * SHARPEN_AMOUNT[level]


def test_sharpening_leaves_flat_areas_alone() -> None:
    flat = np.full((64, 64, 3), (90, 140, 60), np.uint8)
    assert np.array_equal(high_sharpen(flat, 1.0, np.random.default_rng(0)), flat)


@pytest.mark.parametrize("level", LEVELS)
def test_contrast_is_the_spline_through_five_points(level: int) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3))
    move = CONTRAST_AMOUNT[level] / 4
    seen = set()
    for seed in range(12):
        measured = contrast_change(ramp, level / 5, np.random.default_rng(seed))[0, :, 0].astype(int)
        direction = 1 if measured[200] > 200 else -1
        spline = CubicSpline((0, 0.3, 0.5, 0.7, 1), (0, 0.3 - direction * move, 0.5, 0.7 + direction * move, 1))
        assert np.abs(measured - np.clip(255 * spline(np.arange(256) / 255), 0, 255)).max() <= 0.5 + 1e-9
        seen.add(direction)
    assert seen == {1, -1}
