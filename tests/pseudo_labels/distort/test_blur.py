"""Blurs and their kernels against convolutions done in other ways."""

import math

import numpy as np
import pytest
from scipy import ndimage

from pseudo_labels.distort.blur import (
    GAUSSIAN_SIGMA_PX,
    LENS_RADIUS_PX,
    MOTION_LENGTH_PX,
    chain,
    convolve,
    disk_kernel,
    gaussian_blur,
    lens_blur,
    line_kernel,
    motion_blur,
)

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_gaussian_blur_is_its_transfer_function(level: int, photo: np.ndarray) -> None:
    """Against exp(-2 pi^2 sigma^2 f^2) on the mirrored, hence periodic, image; away from the borders."""
    sigma = GAUSSIAN_SIGMA_PX[level]
    mirrored = np.pad(photo.astype(float), ((0, photo.shape[0]), (0, photo.shape[1]), (0, 0)), mode="symmetric")
    down, across = (np.fft.fftfreq(side) for side in mirrored.shape[:2])
    transfer = np.exp(-2 * (math.pi * sigma) ** 2 * (down[:, None] ** 2 + across[None, :] ** 2))
    expected = np.fft.ifft2(np.fft.fft2(mirrored, axes=(0, 1)) * transfer[..., None], axes=(0, 1)).real
    margin = math.ceil(4 * sigma)
    inside = np.s_[margin : photo.shape[0] - margin, margin : photo.shape[1] - margin]
    measured = gaussian_blur(photo, level / 5, _RNG)[inside].astype(float)
    # A sampled kernel is not the continuous one: below 1 pixel the difference is the sampling.
    assert np.abs(measured - expected[inside]).mean() < (0.9 if sigma < 1 else 0.4)


@pytest.mark.parametrize("radius_px", [1.0, 2.0, 3.3, 8.0])
def test_disk_kernel_covers_a_disk(radius_px: float) -> None:
    kernel = disk_kernel(radius_px)
    middle = kernel.shape[0] // 2
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1, ::-1])
    # A pixel that is covered wholly weighs 1 / area. Worst case seen: 1 %, from 16 x 16 samples a pixel.
    assert kernel.max() == pytest.approx(1 / (math.pi * radius_px**2), rel=0.012)
    rows = np.arange(-middle, middle + 1)
    # The second moment of a disk is r^2 / 4; gathering it into pixels adds 1/12 (Sheppard's correction).
    assert (kernel.sum(axis=1) * rows**2).sum() == pytest.approx(radius_px**2 / 4 + 1 / 12, abs=0.07)


@pytest.mark.parametrize("angle_deg", [0, 30, 90, 135])
@pytest.mark.parametrize("length_px", [2.0, 5.5, 10.0])
def test_line_kernel_lies_along_its_angle(length_px: float, angle_deg: int) -> None:
    kernel = line_kernel(length_px, math.radians(angle_deg))
    reach = kernel.shape[0] // 2
    y, x = -np.mgrid[-reach : reach + 1, -reach : reach + 1][0], np.mgrid[-reach : reach + 1, -reach : reach + 1][1]
    along = x * math.cos(math.radians(angle_deg)) + y * math.sin(math.radians(angle_deg))
    across = -x * math.sin(math.radians(angle_deg)) + y * math.cos(math.radians(angle_deg))
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * along).sum() == pytest.approx(0, abs=1e-9)
    # A uniform line of length l - 1 has variance (l - 1)^2 / 12; spreading bilinearly adds at most 1/4.
    assert 0 <= (kernel * along**2).sum() - (length_px - 1) ** 2 / 12 < 0.45
    assert (kernel * across**2).sum() < 0.26


def test_kernels_without_extent_change_nothing() -> None:
    assert disk_kernel(0.5).tolist() == [[1.0]]
    assert line_kernel(1.0, 0.3).tolist() == [[1.0]]


@pytest.mark.parametrize("kernel", [disk_kernel(2.5), line_kernel(7.0, 0.6), disk_kernel(30.0)])
def test_convolve_agrees_with_direct_convolution(kernel: np.ndarray, photo: np.ndarray) -> None:
    planes = np.moveaxis(photo[:97, :111], -1, 0).astype(float)
    direct = np.stack([ndimage.convolve(plane, kernel, mode="nearest") for plane in planes])
    assert np.allclose(convolve(planes, kernel), direct, atol=1e-9)


def test_chain_is_one_blur_after_the_other(photo: np.ndarray) -> None:
    first, second = disk_kernel(3.0), line_kernel(8.0, 1.0)
    plane = np.pad(photo[..., 1].astype(float), 20)[None]
    twice = convolve(convolve(plane, first), second)
    assert np.allclose(convolve(plane, chain(first, second)), twice, atol=1e-9)


def test_lens_blur_turns_a_dot_into_a_disk() -> None:
    dot = np.zeros((81, 81, 3), np.uint8)
    dot[40, 40] = 255
    dot[39:42, 39:42] = 255
    spread = lens_blur(dot, 0.6, _RNG)[..., 0] > 0
    area = 4 * math.pi * LENS_RADIUS_PX[3] ** 2 / 4
    assert area < spread.sum() < 2.2 * area


@pytest.mark.parametrize("seed", [0, 1])
def test_motion_blur_goes_one_random_way(seed: int, photo: np.ndarray) -> None:
    angle = np.random.default_rng(seed).uniform(0, math.pi)
    kernel = line_kernel(MOTION_LENGTH_PX[5], angle)
    expected = np.stack([ndimage.convolve(photo[..., c].astype(float), kernel, mode="nearest") for c in range(3)], -1)
    assert np.abs(motion_blur(photo, 1.0, np.random.default_rng(seed)) - expected).max() <= 0.5 + 1e-6


def test_a_line_along_stripes_keeps_them_and_one_across_does_not() -> None:
    stripes = np.zeros((1, 64, 64))
    stripes[:, :, ::4] = stripes[:, :, 1::4] = 240
    assert np.allclose(convolve(stripes, line_kernel(10.0, math.pi / 2)), stripes)
    assert convolve(stripes, line_kernel(10.0, 0.0))[:, :, 12:52].std() < 0.3 * stripes.std()
